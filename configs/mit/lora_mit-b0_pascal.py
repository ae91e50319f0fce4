# LoRA on the packed projection of queries, keys and values of MiT-B0, a set per task.
# 0.07 M encoder parameters.
_base_ = [
    '../_base_/models/mit-b0.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='LoRA', rank=4, targets=('qkv', ), pre_norm=True)))
