# Swin-B with more pretraining data.
_base_ = './swin-b.py'
# ImageNet-22k weights of the Swin authors (not tuned on ImageNet-1k), as mmseg publishes them
checkpoint = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/swin_base_patch4_window7_224_22k_20220317-4f79f7c0.pth'  # noqa

model = dict(backbone=dict(init_cfg=dict(checkpoint=checkpoint)))
