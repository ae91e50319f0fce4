# For data without a single-task row to take a gain against: the last checkpoints are kept. With a row of your own,
# val_evaluator.reference=dict(<task>=<value>, ...), set default_hooks.checkpoint.save_best='gain'.
_base_ = './default_runtime.py'

default_hooks = dict(checkpoint=dict(save_best=None))
