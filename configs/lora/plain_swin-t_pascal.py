# LoRA (Hu et al., ICLR 2022) without a norm of its own: W + B A can be merged. 0.28 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='LoRA', rank=4, targets=('qkv', ), pre_norm=False)))
