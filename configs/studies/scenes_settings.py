# Settings of Polyhistor-Lite and Polyhistor, one changed at a time, and the same changes of the adapter where it has them: which is
# best, and does it change the ranking? One seed. The rows that it shares with scenes_reduced.py are the same runs where both studies
# have one work dir: --work-dir work_dirs/studies/scenes_reduced.
_base_ = './scenes_reduced.py'
title = 'Scenes, Swin-nano, reduced protocol: settings'
changes = dict(
    # The paper's static adapters begin with LN_post at gain 1, hyper-networks near 0: is it the gain that ranks them?
    gain_1=('LN_post gain 1', dict(post_norm_gain=1.0)),
    gain_0=('LN_post gain 0', dict(post_norm_gain=0.0)),
    parallel=('parallel', dict(insertion='parallel')),
    both=('behind attention and FFN', dict(positions=('attn', 'ffn'))),
    relu=('ReLU', dict(activation='relu')),
    # Products of small factors are tiny at first; HyperFormer, which emits whole matrices, begins ten times as large.
    matched=('matched init', dict(matched_init=True)),
    template_first=('template first', dict(kron_order='template_first')))
changed = dict(
    polyhistor_lite=('gain_1', 'parallel', 'both', 'relu', 'matched', 'template_first'),
    adapter=('gain_0', 'parallel', 'both', 'relu'),
    polyhistor=('gain_1', 'parallel', 'both', 'relu', 'matched'),
    hyperformer=('gain_1', ))
rows = dict(
    _delete_=True,
    **{name: dict(_base_.rows[name], seeds=(0, )) for name in ('single_task', 'decoder_only', *changed)},
    **{
        f'{row}_{name}': dict(
            _base_.rows[row], label=f'{_base_.rows[row]["label"]}, {changes[name][0]}', seeds=(0, ),
            options=dict(model=dict(backbone=dict(adapter=changes[name][1]))))
        for row, names in changed.items()
        for name in names
    })
# Each change by what it changes, then the methods beside each other under the same setting.
comparisons = [
    *((f'{row}_{name}', row) for row, names in changed.items() for name in names),
    ('polyhistor_lite', 'adapter'), ('polyhistor', 'adapter'),
    ('polyhistor_lite_gain_1', 'adapter'), ('polyhistor_gain_1', 'adapter'),
    ('polyhistor_lite', 'adapter_gain_0'), ('polyhistor', 'adapter_gain_0'),
    *((f'{row}_{name}', f'adapter_{name}')
      for name in ('parallel', 'both', 'relu') for row in ('polyhistor_lite', 'polyhistor')),
    ('hyperformer', 'polyhistor'), ('hyperformer_gain_1', 'polyhistor_gain_1')]
paper = False
search = None
del changes, changed
