# A frozen encoder, one pass for all tasks; decoders and output norms are trained; NYUD-v2.
_base_ = [
    '../_base_/models/swin-t_nyud.py',
    '../_base_/datasets/nyud_mt.py',
    '../_base_/schedules/adam_100e.py',
    '../_base_/runtime_without_gain.py',
]
