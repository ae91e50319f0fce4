# HyperFormer: a hyper-network per block that emits whole matrices; NYUD-v2. 72.77 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t_nyud.py',
    '../_base_/datasets/nyud_mt.py',
    '../_base_/schedules/adam_100e.py',
    '../_base_/runtime_without_gain.py',
]
model = dict(backbone=dict(adapter=dict(type='HyperFormer', ratio=8)))
