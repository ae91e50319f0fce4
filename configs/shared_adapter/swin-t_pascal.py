# One adapter (Houlsby et al., ICML 2019) for all tasks, and every LayerNorm of the encoder. 2.20 M encoder parameters.
_base_ = [
    '../_base_/models/swin-t.py',
    '../_base_/datasets/pascal_context_mt.py',
    '../_base_/schedules/adam_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(adapter=dict(type='BottleneckAdapter', ratio=2, per_task=False, tuned=('norm', ))))
