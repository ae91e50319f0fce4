# Swin-S with more pretraining data.
_base_ = './swin-s.py'
# ImageNet-22k weights of the Swin authors (not tuned on ImageNet-1k): the authors' own file, in their key names, which
# the loader converts; OpenMMLab publishes no converted one
checkpoint = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.8/swin_small_patch4_window7_224_22k.pth'  # noqa

model = dict(backbone=dict(init_cfg=dict(checkpoint=checkpoint)))
