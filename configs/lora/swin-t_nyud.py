# LoRA (Hu et al., ICLR 2022) on the fused qkv, a set per task; NYUD-v2. 0.32 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t_nyud.py',
    '../_base_/datasets/nyud_mt.py',
    '../_base_/schedules/adam_100e.py',
    '../_base_/runtime_without_gain.py',
]
model = dict(backbone=dict(adapter=dict(type='LoRA', rank=4, targets=('qkv', ), pre_norm=True)))
