# Single-task full fine-tuning of Swin-S (ImageNet-22k): an encoder of its own for every task, side by side in one run.
# 195.34 M encoder parameters.
_base_ = [
    '../_base_/models/swin-s-in22k.py',
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
            arch='small',
            frozen=False,
            init_cfg=dict(type='Pretrained', checkpoint=_base_.checkpoint))))
