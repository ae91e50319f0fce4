# mmseg's UPerNet on ADE20K with a frozen Swin-T and Polyhistor-Lite adapters, 0.41 M encoder parameters.
_base_ = 'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
custom_imports = dict(imports=['mmseg_polyhistor'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True, type='AdaptedSwin', arch='tiny', adapter=dict(type='PolyhistorLite'),
        init_cfg=dict(type='Pretrained', checkpoint=_base_.checkpoint_file)))
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))  # mmengine's own checkpoints cannot be loaded with torch >= 2.6
