# Swin-S in the place of Swin-T: the same widths, 18 blocks in the third stage.
_base_ = './swin-t.py'
# ImageNet-1k weights of the Swin authors, as mmpretrain publishes them
checkpoint = 'https://download.openmmlab.com/mmclassification/v0/swin-transformer/convert/swin_small_patch4_window7_224-cc7a01c9.pth'  # noqa

model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint=checkpoint)))
