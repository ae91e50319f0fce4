# Polyhistor-Lite on MiT-B2: one hyper-network and Layer-wise Scaling Kernels for 1, 2, 5 and 8 times 64 channels.
# 0.29 M encoder parameters.
_base_ = [
    '../_base_/models/mit-b2.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='PolyhistorLite', ratio=2, rank=-4)))
