# Body parts and silhouettes of real street photographs with a frozen Swin-nano, pretrained or random: some of the methods, by the
# recipe and the learning rates of the scenes. Run by tools/reproduce.py; results in docs/results.md.
_base_ = './scenes_reduced.py'
title = 'Street photographs, Swin-nano, reduced protocol'
data = '../_base_/datasets/ccp_128.py'
tasks = ('human_parts', 'saliency')
encoders = dict(random=dict())
rows = dict(
    _delete_=True,
    **{
        name: dict(_base_.rows[name], seeds=(0, ))
        for name in (
            'single_task', 'multi_task', 'decoder_only', 'bitfit', 'lora', 'adapter', 'hyperformer', 'polyhistor', 'polyhistor_lite')
    })
paper = False
search = None
