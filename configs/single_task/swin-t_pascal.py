# Single-task full fine-tuning, the reference of the gain: an encoder of its own for every task, side by side in one
# run. 110.07 M encoder parameters. Every encoder sees the same batches.
_base_ = [
    '../_base_/models/swin-t.py',
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
            arch='tiny',
            frozen=False,
            init_cfg=dict(type='Pretrained', checkpoint=_base_.checkpoint))))
