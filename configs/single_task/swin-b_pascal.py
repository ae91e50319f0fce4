# Single-task full fine-tuning of Swin-B: an encoder of its own for every task, side by side in one run.
# 346.96 M encoder parameters.
_base_ = [
    '../_base_/models/swin-b.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        _delete_=True,
        type='TaskEncoders',
        tasks=_base_.tasks,
        encoder=dict(
            type='AdaptedSwin',
            arch='base',
            frozen=False,
            init_cfg=dict(type='Pretrained', checkpoint=_base_.checkpoint))))
