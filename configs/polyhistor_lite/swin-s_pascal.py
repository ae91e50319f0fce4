# Polyhistor-Lite on Swin-S: one hyper-network and Layer-wise Scaling Kernels (paper, sections 4.2, 4.3).
# 0.44 M encoder parameters.
_base_ = [
    '../_base_/models/swin-s.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='PolyhistorLite', ratio=2, rank=-4)))
