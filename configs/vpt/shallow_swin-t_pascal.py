# VPT-shallow (Jia et al., ECCV 2022): prompts of each task in the first block. 0.02 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='VisualPrompt', prompts=50, deep=False)))
