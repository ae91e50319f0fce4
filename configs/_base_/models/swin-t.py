# A frozen Swin-T with one SegFormer all-MLP decoder per task: the model of every method, still without adapters.
tasks = ('semseg', 'human_parts', 'saliency', 'normals')
# ImageNet-1k weights of the Swin authors, as mmpretrain publishes them
checkpoint = 'https://download.openmmlab.com/mmclassification/v0/swin-transformer/convert/swin_tiny_patch4_window7_224-160bb0a5.pth'  # noqa

model = dict(
    type='MultiTaskSegmentor',
    tasks=tasks,
    data_preprocessor=dict(
        type='MultiTaskDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size_divisor=32,
        test_cfg=dict(size_divisor=32)),
    backbone=dict(
        type='AdaptedSwin', arch='tiny', tasks=tasks, init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_heads=dict(type='AllMLPHead', in_channels=[96, 192, 384, 768], channels=256, dropout_ratio=0.1),
    test_cfg=dict(mode='whole', resolution='original'))
