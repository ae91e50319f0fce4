# MTLoRA (Agiza et al., CVPR 2024), rank 16: low-rank updates for all tasks and for each. 3.01 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='MTLoRA', rank=16, task_rank=4, scale=4.0)))
