"""Config of the toy training."""

custom_imports = dict(
    imports=['mmseg_polyhistor', 'mmseg_polyhistor.engine', 'toy_training'], allow_failed_imports=False
)
default_scope = 'mmseg'
model = dict(type='ToyModel')
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(type='ToyDataset'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)
train_cfg = dict(type='SeededEpochBasedTrainLoop', max_epochs=4)
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainableOptimWrapperConstructor',
    optimizer=dict(type='Adam', lr=0.01, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
param_scheduler = [dict(type='LinearLR', start_factor=1.0, end_factor=0.0, by_epoch=False, end=16)]
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(type='ToyDataset', noise=0.0),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
)
val_cfg = dict(type='ValLoop')
val_evaluator = dict(type='ToyMetric')
test_dataloader, test_cfg, test_evaluator = val_dataloader, dict(type='TestLoop'), val_evaluator
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='SafeCheckpointHook', interval=1),
)
custom_hooks = [dict(type='ToyLossLog'), dict(type='ParameterReportHook')]
randomness = dict(seed=3)
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
log_level = 'WARNING'
