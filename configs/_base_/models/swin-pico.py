# A very small Swin (widths 48 to 384, five blocks) for the mini data: no published weights exist, so it is frozen at random
# values, and what is learnt lies in adapters and decoders alone.
tasks = ('semseg', 'human_parts', 'saliency', 'normals')

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
        type='AdaptedSwin',
        arch=dict(embed_dims=48, depths=[1, 1, 2, 1], num_heads=[3, 6, 12, 24]),
        tasks=tasks,
        drop_path_rate=0.0),
    decode_heads=dict(type='AllMLPHead', in_channels=[48, 96, 192, 384], channels=128, dropout_ratio=0.1),
    test_cfg=dict(mode='whole', resolution='original'))
