# BitFit (Ben Zaken et al., ACL 2022), one set of biases for all tasks. 0.07 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='BitFit', per_task=False)))
