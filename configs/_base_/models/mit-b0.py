# A frozen MiT-B0, the encoder of SegFormer, in the place of Swin-T.
_base_ = './swin-t.py'
# ImageNet-1k weights of SegFormer's authors, as mmseg publishes them
checkpoint = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segformer/mit_b0_20220624-7e0fe6dd.pth'  # noqa

model = dict(
    backbone=dict(
        _delete_=True,
        type='AdaptedMiT',
        arch='b0',
        tasks=_base_.tasks,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_heads=dict(in_channels=[32, 64, 160, 256]))
