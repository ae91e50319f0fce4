# Polyhistor on MiT-B0: Decomposed HyperNetworks.
# 1.20 M encoder parameters.
_base_ = [
    '../_base_/models/mit-b0.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='Polyhistor', ratio=16, rank=-4)))
