# An adapter per task behind every feed-forward net; NYUD-v2. 8.69 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t_nyud.py',
    '../_base_/datasets/nyud_mt.py',
    '../_base_/schedules/adam_100e.py',
    '../_base_/runtime_without_gain.py',
]
model = dict(backbone=dict(adapter=dict(type='BottleneckAdapter', ratio=2)))
