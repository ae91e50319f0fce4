# BitFit on MiT-B0: the biases of linear maps, convolutions and norms, a set per task; tables of relative positions
# it has none. 0.07 M encoder parameters.
_base_ = [
    '../_base_/models/mit-b0.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='BitFit', tuned=('bias', 'norm_bias'))))
