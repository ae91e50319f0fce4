# Polyhistor on the mini data: the whole system in a few minutes on two CPU cores.
_base_ = [
    '../_base_/models/swin-pico.py',
    '../_base_/datasets/mini_pascal.py',
    '../_base_/schedules/mini.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='Polyhistor', ratio=8, rank=-2)))
# There is no single-task row to take a gain against, so the last checkpoint is the one to keep.
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(_delete_=True, type='SafeCheckpointHook', interval=4, max_keep_ckpts=2))
custom_hooks = [*_base_.custom_hooks, dict(type='ProgressBarHook')]
