# An adapter per task behind every feed-forward net of Swin-B. 28.09 M encoder parameters.
_base_ = [
    '../_base_/models/swin-b.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='BottleneckAdapter', ratio=2)))
