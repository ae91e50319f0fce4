# One encoder for all tasks, trained as a whole; PASCAL-Context with edges. 27.52 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t_pascal-edge.py',
    '../_base_/datasets/pascal_context_mt_edge.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/runtime_without_gain.py',
]
model = dict(backbone=dict(frozen=False))
