# Polyhistor on Swin-S (ImageNet-22k): Decomposed HyperNetworks, one per block (paper, section 4.1).
# 12.04 M encoder parameters.
_base_ = [
    '../_base_/models/swin-s-in22k.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='Polyhistor', ratio=16, rank=-4)))
