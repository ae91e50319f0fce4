# What every run shares: scope, hooks, logging, reproducibility.
default_scope = 'mmseg'
custom_imports = dict(imports=['mmseg_polyhistor'], allow_failed_imports=False)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))  # tools/train.py takes gloo where there is no GPU
randomness = dict(seed=0)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=True),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='SafeCheckpointHook', by_epoch=True, interval=1, max_keep_ckpts=3, save_best='gain', rule='greater'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook', interval=1))
custom_hooks = [
    dict(type='TaskCheckHook'),
    dict(type='FiniteTrainingHook', on_nonfinite='stop'),
    dict(type='BoundedHistoryHook'),
    dict(type='ParameterReportHook'),
    dict(type='SyncBuffersHook'),  # several processes: validate with the mean of their BatchNorm statistics
]

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='MultiTaskVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
