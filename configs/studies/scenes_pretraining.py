# Encoders of every age of the pretraining, from random weights to its end: does the gain of adaptation grow with them? The rows
# that it shares with scenes_reduced.py and scenes_random.py are the same runs where the studies have one work dir:
# --work-dir work_dirs/studies/scenes_reduced.
_base_ = './scenes_reduced.py'
title = 'Scenes, Swin-nano, reduced protocol: encoders of every age'
encoders = dict(
    _delete_=True,
    random=dict(),
    epoch_2=dict(init_cfg=dict(type='Pretrained', checkpoint='data/swin-nano_epoch_2.safetensors')),
    epoch_5=dict(init_cfg=dict(type='Pretrained', checkpoint='data/swin-nano_epoch_5.safetensors')),
    pretrained=_base_.encoders['pretrained'])
rows = dict(
    _delete_=True,
    **{
        name: dict(_base_.rows[name], seeds=(0, ))
        for name in ('single_task', 'decoder_only', 'polyhistor_lite', 'polyhistor')
    })
comparisons = [('polyhistor', 'decoder_only'), ('polyhistor_lite', 'decoder_only'), ('polyhistor', 'polyhistor_lite')]
paper = False
search = None
