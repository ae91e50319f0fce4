# LoRA (Hu et al., ICLR 2022), one set for all tasks. 0.08 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='LoRA', rank=4, targets=('qkv', ), pre_norm=True, per_task=False)))
