# Settings of Polyhistor-Lite and Polyhistor, one changed at a time, and starts of static adapters. The rows that it
# shares with scenes_reduced.py are the same runs where both studies have one work dir:
# --work-dir work_dirs/studies/scenes_reduced.
_base_ = './scenes_reduced.py'
title = 'Scenes, Swin-nano, reduced protocol: settings of Polyhistor'
lite, whole = _base_.rows['polyhistor_lite'], _base_.rows['polyhistor']
changes = dict(
    gain_1=('LN_post gain 1', dict(post_norm_gain=1.0)),
    parallel=('parallel', dict(insertion='parallel')),
    both=('behind attention and FFN', dict(positions=('attn', 'ffn'))),
    attention=('behind attention', dict(positions=('attn', ))),
    relu=('ReLU', dict(activation='relu')),
    gelu=('GELU', dict(activation='gelu')),
    # Products of small factors are tiny at first; HyperFormer, which emits whole matrices, begins ten times as large.
    matched=('matched init', dict(matched_init=True)))
kernels = dict(template_first=('template first', dict(kron_order='template_first')))
rows = dict(
    _delete_=True,
    single_task=_base_.rows['single_task'],
    decoder_only=_base_.rows['decoder_only'],
    polyhistor_lite=lite,
    polyhistor=whole,
    adapter=_base_.rows['adapter'],
    low_rank_adapter=_base_.rows['low_rank_adapter'],
    compacter=_base_.rows['compacter'],
    **{
        f'{method}_{name}': dict(
            row, label=f'{row["label"]}, {text}', encoders=('pretrained', ), seeds=(0, ),
            options=dict(model=dict(backbone=dict(adapter=change))))
        for method, row, own in (('polyhistor_lite', lite, kernels), ('polyhistor', whole, {}))
        for name, (text, change) in {**changes, **own}.items()
    },
    # The paper's static adapters begin with LN_post at gain 1, hyper-networks at 0: is it the gain that ranks them?
    **{
        f'{name}_gain_0': dict(
            row, label=f'{row["label"]}, LN_post gain 0', encoders=('pretrained', ), seeds=(0, ),
            options=dict(model=dict(backbone=dict(adapter=dict(post_norm_gain=0.0)))))
        for name, row in _base_.rows.items()
        if name in ('adapter', 'low_rank_adapter', 'compacter')
    },
    low_rank_adapter_matched=dict(
        _base_.rows['low_rank_adapter'], label='Low-rank adapter, matched init', encoders=('pretrained', ), seeds=(0, ),
        options=dict(model=dict(backbone=dict(adapter=dict(matched_init=True))))))
comparisons = [
    *[(f'{method}_{name}', method) for method, own in (('polyhistor_lite', kernels), ('polyhistor', {})) for name in {**changes, **own}],
    *[(f'{name}_gain_0', name) for name in ('adapter', 'low_rank_adapter', 'compacter')],
    ('low_rank_adapter_matched', 'low_rank_adapter')]
paper = False
search = None
del lite, whole, changes, kernels
