# A short training: Adam, eight epochs, 80 iterations of warm-up, then a rate that falls linearly per iteration to 0.
_base_ = './mini.py'
max_epochs = 8
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=80, by_epoch=False),
    dict(type='PolyLR', power=1.0, eta_min=0.0, begin=0, end=max_epochs, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(type='SeededEpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
