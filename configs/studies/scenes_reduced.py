# All methods on rendered scenes with a frozen, pretrained Swin-nano: the reduced protocol for two CPU cores (128 x 128 pixels,
# eight epochs of batch 4). Run by tools/reproduce.py; results in docs/results.md.
title = 'Scenes, Swin-nano, reduced protocol'
data = '../_base_/datasets/scenes_128.py'
schedule = '../_base_/schedules/adam_8e.py'

encoder = dict(
    arch=dict(embed_dims=48, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24]), window_size=4, drop_path_rate=0.0, init_cfg=None)
encoders = dict(pretrained=dict(init_cfg=dict(type='Pretrained', checkpoint='data/swin-nano_tinyimagenet.safetensors')))
model = dict(decode_heads=dict(in_channels=[48, 96, 192, 384], channels=128))
runtime = dict(
    default_hooks=dict(
        logger=dict(interval=40),
        checkpoint=dict(type='AdapterCheckpointHook', interval=2, max_keep_ckpts=1, save_best=None)))

# The best of the search below, in which each group has one row. A group has in common how far a step of Adam moves the encoder's
# features.
groups = dict(decoder=1e-2, full=3e-4, bias=1e-2, prompts=3e-3, updates=3e-3, adapters=3e-4, hyper=3e-4)
rows = dict(
    single_task=dict(config='../single_task/swin-t_pascal.py', group='full', label='Single-task', seeds=(0, 1, 2)),
    multi_task=dict(config='../multi_task/swin-t_pascal.py', group='full', label='Multi-task fine-tuning'),
    decoder_only=dict(config='../decoder_only/swin-t_pascal.py', group='decoder', label='Decoders only', seeds=(0, 1, 2)),
    bitfit=dict(config='../bitfit/swin-t_pascal.py', group='bias', label='BitFit'),
    relative_bias=dict(config='../relative_bias/swin-t_pascal.py', group='bias', label='Relative bias'),
    # As many prompts as a window has tokens: 50 beside 49 in the config, 16 beside 16 here.
    vpt_shallow=dict(
        config='../vpt/shallow_swin-t_pascal.py', group='prompts', label='VPT-shallow',
        options=dict(model=dict(backbone=dict(adapter=dict(prompts=16))))),
    vpt_deep=dict(
        config='../vpt/deep_swin-t_pascal.py', group='prompts', label='VPT-deep',
        options=dict(model=dict(backbone=dict(adapter=dict(prompts=16))))),
    # Its two divisions do not divide the 3 channels that the config's ratio of 16 would leave.
    phm=dict(
        config='../phm/swin-t_pascal.py', group='adapters', label='PHM layer',
        options=dict(model=dict(backbone=dict(adapter=dict(ratio=8))))),
    compacter=dict(config='../compacter/swin-t_pascal.py', group='adapters', label='Compacter'),
    compacter_plusplus=dict(config='../compacter/plusplus_swin-t_pascal.py', group='adapters', label='Compacter++'),
    lora=dict(config='../lora/swin-t_pascal.py', group='updates', label='LoRA'),
    adapter=dict(config='../adapter/swin-t_pascal.py', group='adapters', label='Adapter', seeds=(0, 1, 2)),
    low_rank_adapter=dict(config='../low_rank_adapter/swin-t_pascal.py', group='adapters', label='Low-rank adapter'),
    shared_adapter=dict(config='../shared_adapter/swin-t_pascal.py', group='adapters', label='Shared adapter'),
    # Half of the config's bottleneck for half of its width; 64 would be wider than the first stage.
    adaptformer=dict(
        config='../adaptformer/swin-t_pascal.py', group='updates', label='AdaptFormer',
        options=dict(model=dict(backbone=dict(adapter=dict(bottleneck=32))))),
    mtlora=dict(config='../mtlora/r16_swin-t_pascal.py', group='adapters', label='MTLoRA, r = 16'),
    hyperformer=dict(config='../hyperformer/swin-t_pascal.py', group='hyper', label='HyperFormer', seeds=(0, 1, 2)),
    polyhistor=dict(config='../polyhistor/swin-t_pascal.py', group='hyper', label='Polyhistor', seeds=(0, 1, 2)),
    polyhistor_lite=dict(config='../polyhistor_lite/swin-t_pascal.py', group='hyper', label='Polyhistor-Lite', seeds=(0, 1, 2)))
reference = 'single_task'
paper = True
# What the paper claims of its methods, with the numbers that the three seeds give.
comparisons = [
    ('polyhistor', 'decoder_only'), ('polyhistor_lite', 'decoder_only'), ('adapter', 'decoder_only'),
    ('polyhistor_lite', 'adapter'), ('polyhistor', 'adapter'), ('hyperformer', 'polyhistor'), ('polyhistor', 'polyhistor_lite')]
# On the last 128 of the 640 training images, for one row of each group; the decoders' rate comes first, for the others use it.
search = dict(
    rates=dict(
        decoder_only=[1e-3, 3e-3, 1e-2, 3e-2], single_task=[1e-4, 3e-4, 1e-3], bitfit=[1e-3, 3e-3, 1e-2, 3e-2],
        vpt_deep=[1e-3, 3e-3, 1e-2], lora=[1e-3, 3e-3, 1e-2], adapter=[1e-4, 3e-4, 1e-3, 3e-3], polyhistor=[1e-4, 3e-4, 1e-3, 3e-3]),
    encoder='pretrained', train=512, val=-128)
