# PHM layers (Zhang et al., ICLR 2021) as the maps of an adapter per task. 0.59 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='PHMAdapter', ratio=16, divisions=2)))
