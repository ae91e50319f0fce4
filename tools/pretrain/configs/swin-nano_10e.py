# Swin-nano, a quarter of Swin-T's parameters, for two CPU cores and two hours: 200 classes, 32-pixel images enlarged to 64 pixels.
data_file = 'data/pretrain/tinyimagenet32_jpeg.npz'
image_size = 64  # maps of 16, 8, 4 and 2 tokens on a side, which windows of 4 fit best: 3.3 times the speed of 8, measured
num_classes = 200
batch_size = 256

default_scope = 'mmpretrain'
custom_imports = dict(
    imports=['mmseg_polyhistor', 'pretrain.jpeg_arrays', 'pretrain.bf16'], allow_failed_imports=False)

# A few epochs over-fit nothing: light augmentation. swin-nano_100e.py has the heavy one.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        num_classes=num_classes, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(
        type='SwinTransformer',
        arch=dict(embed_dims=48, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24]),
        img_size=image_size,
        window_size=4,
        pad_small_map=True,
        drop_path_rate=0.0),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='Fp32LinearClsHead',
        num_classes=num_classes,
        in_channels=384,
        init_cfg=None,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0)])

# The first half of the training sees smaller images, which take two thirds of the time.
crop = dict(type='RandomResizedCrop', scale=48, crop_ratio_range=(0.35, 1.0), interpolation='bicubic')
augmentations = [dict(type='RandomFlip', prob=0.5, direction='horizontal'), dict(type='PackInputs')]
train_pipeline = [crop, *augmentations]
late_pipeline = [dict(crop, scale=image_size), *augmentations]
val_pipeline = [
    dict(type='Resize', scale=(image_size, image_size), interpolation='bicubic'),
    dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='JpegArrays', data_file=data_file, split='train', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=batch_size,
    num_workers=1,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='JpegArrays', data_file=data_file, split='val', pipeline=val_pipeline, test_mode=True))
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader, test_evaluator = val_dataloader, val_evaluator

optim_wrapper = dict(
    type='Bf16OptimWrapper',  # twice the speed of float32 on CPUs with AVX-512 BF16; float32 on CPUs without
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, betas=(0.9, 0.999), fused=True),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'.relative_position_bias_table': dict(decay_mult=0.0)}))
param_scheduler = [  # the second ends with the training
    dict(type='LinearLR', start_factor=1e-2, begin=0, end=1, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, begin=1, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(type='mmseg.SeededEpochBasedTrainLoop', max_epochs=10, val_interval=1)
val_cfg = dict()
test_cfg = dict()

env_cfg = dict(
    cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl'))
randomness = dict(seed=0)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='mmseg.SafeCheckpointHook', interval=1, max_keep_ckpts=-1),  # all: weights of every age
    sampler_seed=dict(type='DistSamplerSeedHook'))
# What is validated and saved as weights is an average over the last iterations, which early checkpoints, with their high
# learning rate, need.
custom_hooks = [
    dict(type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=0.002, gamma=10),
    dict(type='SwitchRecipeHook', schedule=[dict(action_epoch=6, train_pipeline=late_pipeline)]),
    dict(type='mmseg.FiniteTrainingHook', on_nonfinite='stop')]
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
log_level = 'INFO'
load_from = None
resume = False
