# Polyhistor: Decomposed HyperNetworks, one per block; PASCAL-Context with edges. 6.41 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t_pascal-edge.py',
    '../_base_/datasets/pascal_context_mt_edge.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/runtime_without_gain.py',
]
model = dict(backbone=dict(adapter=dict(type='Polyhistor', ratio=16, rank=-4)))
