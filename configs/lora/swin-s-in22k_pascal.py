# LoRA (Hu et al., ICLR 2022) on the fused qkv of Swin-S (ImageNet-22k), a set per task. 0.65 M encoder parameters.
_base_ = [
    '../_base_/models/swin-s-in22k.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='LoRA', rank=4, targets=('qkv', ), pre_norm=True)))
