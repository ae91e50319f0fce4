# All methods on rendered scenes with a frozen Swin-nano, pretrained or random: the reduced protocol for two CPU cores (128 x 128
# pixels, eight epochs of batch 8). Run by tools/reproduce.py; results in docs/results.md.
title = 'Scenes, Swin-nano, reduced protocol'
data = '../_base_/datasets/scenes_128.py'
schedule = '../_base_/schedules/adam_8e.py'

encoder = dict(
    arch=dict(embed_dims=48, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24]), window_size=4, drop_path_rate=0.0, init_cfg=None)
encoders = dict(
    pretrained=dict(init_cfg=dict(type='Pretrained', checkpoint='data/swin-nano_tinyimagenet.safetensors')),
    random=dict())
model = dict(decode_heads=dict(in_channels=[48, 96, 192, 384], channels=128))
runtime = dict(
    default_hooks=dict(
        logger=dict(interval=20),
        checkpoint=dict(type='AdapterCheckpointHook', interval=2, max_keep_ckpts=1, save_best=None)))

groups = dict(full=1e-3, decoder=1e-3, weights=1e-3, adapters=1e-3, hyper=1e-3)
rows = dict(
    single_task=dict(config='../single_task/swin-t_pascal.py', group='full', label='Single-task', seeds=(0, 1, 2)),
    multi_task=dict(config='../multi_task/swin-t_pascal.py', group='full', label='Multi-task fine-tuning'),
    decoder_only=dict(config='../decoder_only/swin-t_pascal.py', group='decoder', label='Decoders only', seeds=(0, 1, 2)),
    bitfit=dict(config='../bitfit/swin-t_pascal.py', group='weights', label='BitFit'),
    relative_bias=dict(config='../relative_bias/swin-t_pascal.py', group='weights', label='Relative bias'),
    vpt_shallow=dict(config='../vpt/shallow_swin-t_pascal.py', group='weights', label='VPT-shallow'),
    vpt_deep=dict(config='../vpt/deep_swin-t_pascal.py', group='weights', label='VPT-deep'),
    # Its two divisions do not divide the 3 channels that the config's ratio of 16 would leave.
    phm=dict(
        config='../phm/swin-t_pascal.py', group='adapters', label='PHM layer',
        options=dict(model=dict(backbone=dict(adapter=dict(ratio=8))))),
    compacter=dict(config='../compacter/swin-t_pascal.py', group='adapters', label='Compacter'),
    compacter_plusplus=dict(config='../compacter/plusplus_swin-t_pascal.py', group='adapters', label='Compacter++'),
    lora=dict(config='../lora/swin-t_pascal.py', group='adapters', label='LoRA'),
    adapter=dict(config='../adapter/swin-t_pascal.py', group='adapters', label='Adapter'),
    low_rank_adapter=dict(config='../low_rank_adapter/swin-t_pascal.py', group='adapters', label='Low-rank adapter'),
    shared_adapter=dict(config='../shared_adapter/swin-t_pascal.py', group='adapters', label='Shared adapter'),
    adaptformer=dict(config='../adaptformer/swin-t_pascal.py', group='adapters', label='AdaptFormer'),
    mtlora=dict(config='../mtlora/r16_swin-t_pascal.py', group='adapters', label='MTLoRA, r = 16'),
    hyperformer=dict(config='../hyperformer/swin-t_pascal.py', group='hyper', label='HyperFormer'),
    polyhistor=dict(config='../polyhistor/swin-t_pascal.py', group='hyper', label='Polyhistor', seeds=(0, 1, 2)),
    polyhistor_lite=dict(config='../polyhistor_lite/swin-t_pascal.py', group='hyper', label='Polyhistor-Lite', seeds=(0, 1, 2)))
reference = ('pretrained', 'single_task')
# Learning rates are chosen on the last 128 of the 640 training images, for one row of each group.
search = dict(
    rates=dict(
        single_task=[1e-4, 3e-4, 1e-3], decoder_only=[3e-4, 1e-3, 3e-3], bitfit=[3e-4, 1e-3, 3e-3], adapter=[3e-4, 1e-3, 3e-3],
        polyhistor=[3e-4, 1e-3, 3e-3]),
    encoder='pretrained', train=512, val=-128)
