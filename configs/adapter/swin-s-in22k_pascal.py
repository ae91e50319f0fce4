# An adapter per task behind every feed-forward net of Swin-S (ImageNet-22k). 15.83 M encoder parameters.
_base_ = [
    '../_base_/models/swin-s-in22k.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='BottleneckAdapter', ratio=2)))
