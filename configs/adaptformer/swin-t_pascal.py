# AdaptFormer (Chen et al., NeurIPS 2022), a set per task, parallel to the feed-forward nets. 2.28 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='AdaptFormer', bottleneck=64, scale=0.1)))
