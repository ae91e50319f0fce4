# Three times the training of scenes_reduced.py, for some of its rows and with its learning rates: does the ranking change?
_base_ = './scenes_reduced.py'
title = 'Scenes, Swin-nano, 24 epochs'
schedule = '../_base_/schedules/adam_24e.py'
rows = dict(
    _delete_=True,
    **{
        name: dict(_base_.rows[name], seeds=(0, ))
        for name in ('single_task', 'decoder_only', 'adapter', 'hyperformer', 'polyhistor', 'polyhistor_lite')
    })
paper = False
search = None
