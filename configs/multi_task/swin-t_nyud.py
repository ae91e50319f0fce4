# One encoder for all tasks, trained as a whole; NYUD-v2. 27.52 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t_nyud.py',
    '../_base_/datasets/nyud_mt.py',
    '../_base_/schedules/adam_100e.py',
    '../_base_/runtime_without_gain.py',
]
model = dict(backbone=dict(frozen=False))
