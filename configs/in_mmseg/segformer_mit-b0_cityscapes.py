# mmseg's SegFormer on Cityscapes with a frozen MiT-B0 and Polyhistor-Lite adapters, 0.19 M encoder parameters.
_base_ = 'mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py'
custom_imports = dict(imports=['mmseg_polyhistor'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True, type='AdaptedMiT', arch='b0', adapter=dict(type='PolyhistorLite'),
        init_cfg=dict(type='Pretrained', checkpoint=_base_.checkpoint)))
# mmseg gives everything with 'head' in its name ten times the rate; the hyper-network's heads are not meant.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone.adapters': dict(lr_mult=1.0)}))
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))  # mmengine's own checkpoints cannot be loaded with torch >= 2.6
