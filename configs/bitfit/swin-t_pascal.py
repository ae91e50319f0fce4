# BitFit (Ben Zaken et al., ACL 2022): the biases of the encoder, a set per task. 0.30 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='BitFit')))
