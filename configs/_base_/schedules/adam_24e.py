# Three times adam_8e.py.
_base_ = './adam_8e.py'
max_epochs = 24
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=80, by_epoch=False),
    dict(type='PolyLR', power=1.0, eta_min=0.0, begin=0, end=max_epochs, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
