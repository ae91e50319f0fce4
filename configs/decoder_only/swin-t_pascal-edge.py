# A frozen encoder, one pass for all tasks; decoders and output norms are trained; PASCAL-Context with edges.
_base_ = [
    '../_base_/models/swin-t_pascal-edge.py',
    '../_base_/datasets/pascal_context_mt_edge.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/runtime_without_gain.py',
]
