# One Swin-S (ImageNet-22k) for all tasks, trained as a whole. 48.84 M encoder parameters.
_base_ = [
    '../_base_/models/swin-s-in22k.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(frozen=False))
