# Three times adam_8e.py.
_base_ = './adam_8e.py'
max_epochs = 24
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=max_epochs)]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
