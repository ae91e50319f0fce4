# LoRA (Hu et al., ICLR 2022) on the fused qkv, a set per task, with a LayerNorm of its own as the paper has it.
# 0.32 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='LoRA', rank=4, targets=('qkv', ), pre_norm=True)))
