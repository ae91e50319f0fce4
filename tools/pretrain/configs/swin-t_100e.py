# Swin-T on the same images, for a GPU.
_base_ = './swin-nano_100e.py'

model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.2),
    head=dict(in_channels=768))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=1))
