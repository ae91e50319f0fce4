# Swin-B in the place of Swin-T.
_base_ = './swin-t.py'
# ImageNet-1k weights of the Swin authors, as mmpretrain publishes them
checkpoint = 'https://download.openmmlab.com/mmclassification/v0/swin-transformer/convert/swin_base_patch4_window7_224-4670dd19.pth'  # noqa

model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint=checkpoint)),
    decode_heads=dict(in_channels=[128, 256, 512, 1024]))
