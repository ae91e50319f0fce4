# A frozen MiT-B0, one pass for all tasks; decoders and output norms are trained.
_base_ = [
    '../_base_/models/mit-b0.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
