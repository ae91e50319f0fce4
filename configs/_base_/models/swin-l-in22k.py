# Swin-L in the place of Swin-T; there are no weights of it from ImageNet-1k alone.
_base_ = './swin-t.py'
# ImageNet-22k weights of the Swin authors (not tuned on ImageNet-1k), as mmseg publishes them
checkpoint = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/swin_large_patch4_window7_224_22k_20220412-aeecf2aa.pth'  # noqa

model = dict(
    backbone=dict(arch='large', init_cfg=dict(checkpoint=checkpoint)),
    decode_heads=dict(in_channels=[192, 384, 768, 1536]))
