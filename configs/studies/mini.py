# What anyone can repeat on two CPU cores, from nothing: the rendered data and the random, frozen Swin-pico of the
# quickstart, for some of the methods. Before it:
# python tools/dataset_converters/make_mini_pascal.py data/mini_pascal --train 320 --val 80 --size 128
_base_ = './scenes_reduced.py'
title = 'Mini data, random Swin-pico'
data = '../_base_/datasets/mini_pascal.py'
schedule = '../_base_/schedules/mini.py'
encoder = dict(
    _delete_=True, arch=dict(embed_dims=48, depths=[1, 1, 2, 1], num_heads=[3, 6, 12, 24]), drop_path_rate=0.0, init_cfg=None)
encoders = dict(_delete_=True, random=dict())
# The best of the search below; the groups without a row in it have the scenes' rates.
groups = dict(decoder=5e-3, hyper=1e-3)
rows = dict(
    _delete_=True,
    **{
        name: dict(_base_.rows[name], seeds=(0, ))
        for name in ('single_task', 'multi_task', 'decoder_only', 'bitfit', 'lora', 'adapter', 'hyperformer')
    },
    polyhistor=dict(config='../polyhistor/swin-pico_mini-pascal.py', group='hyper', label='Polyhistor'),
    polyhistor_lite=dict(config='../polyhistor_lite/swin-pico_mini-pascal.py', group='hyper', label='Polyhistor-Lite'))
paper = False
search = dict(
    _delete_=True,
    rates=dict(decoder_only=[2e-3, 5e-3, 1e-2], polyhistor_lite=[3e-4, 1e-3, 2e-3, 5e-3]),
    encoder='random', train=256, val=-64)
