# MiT-B2 in the place of MiT-B0: widths from 64 to 512, 16 blocks.
_base_ = './mit-b0.py'
# ImageNet-1k weights of SegFormer's authors, as mmseg publishes them
checkpoint = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segformer/mit_b2_20220624-66e8bf70.pth'  # noqa

model = dict(
    backbone=dict(arch='b2', init_cfg=dict(checkpoint=checkpoint)),
    decode_heads=dict(in_channels=[64, 128, 320, 512]))
