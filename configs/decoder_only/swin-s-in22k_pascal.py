# A frozen Swin-S (ImageNet-22k), one pass for all tasks; decoders and output norms are trained.
_base_ = [
    '../_base_/models/swin-s-in22k.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
