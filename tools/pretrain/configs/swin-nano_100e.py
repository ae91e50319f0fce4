# For a GPU: a hundred epochs need the heavy augmentation of mmpretrain's Swin configs.
_base_ = './swin-nano_10e.py'

model = dict(
    backbone=dict(drop_path_rate=0.1),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))
train_pipeline = [
    dict(type='RandomResizedCrop', scale={{_base_.image_size}}, crop_ratio_range=(0.25, 1.0), interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic')),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[103.53, 116.28, 123.675],
        fill_std=[57.375, 57.12, 58.395]),
    dict(type='PackInputs')]
train_dataloader = dict(batch_size=512, num_workers=12, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=4)
test_dataloader = dict(num_workers=4)

optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, begin=0, end=5, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, begin=5, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=100, val_interval=5)
custom_hooks = [
    dict(type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=0.001, gamma=10),
    dict(type='mmseg.FiniteTrainingHook', on_nonfinite='stop')]
