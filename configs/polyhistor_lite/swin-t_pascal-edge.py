# Polyhistor-Lite: one hyper-network and Layer-wise Scaling Kernels; PASCAL-Context with edges.
# 0.41 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t_pascal-edge.py',
    '../_base_/datasets/pascal_context_mt_edge.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/runtime_without_gain.py',
]
model = dict(backbone=dict(adapter=dict(type='PolyhistorLite', ratio=2, rank=-4)))
