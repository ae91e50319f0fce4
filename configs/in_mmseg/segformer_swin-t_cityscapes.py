# SegFormer's head on Cityscapes with a frozen Swin-T and LoRA on every linear map of its blocks, 0.57 M encoder parameters.
_base_ = 'mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py'
custom_imports = dict(imports=['mmseg_polyhistor'], allow_failed_imports=False)
# The ImageNet-1k weights that mmseg's own Swin configs name
checkpoint = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/swin_tiny_patch4_window7_224_20220317-1cdeb081.pth'  # noqa
model = dict(
    backbone=dict(
        _delete_=True, type='AdaptedSwin', arch='tiny',
        adapter=dict(type='LoRA', rank=8, targets=('qkv', 'proj', 'fc1', 'fc2'), pre_norm=False),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(in_channels=[96, 192, 384, 768]))
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))  # mmengine's own checkpoints cannot be loaded with torch >= 2.6
