# Single-task full fine-tuning: an encoder of its own for every task, side by side in one run; PASCAL-Context with edges.
# 137.59 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t_pascal-edge.py',
    '../_base_/datasets/pascal_context_mt_edge.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/runtime_without_gain.py',
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
