# The recipe of adam_60e.py for a smaller data set: 100 epochs of batch 8 are about 9,900 iterations on NYUD-v2.
_base_ = './adam_60e.py'
max_epochs = 100
param_scheduler = [
    dict(type='PolyLR', power=1.0, eta_min=0.0, begin=0, end=max_epochs, by_epoch=True, convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
auto_scale_lr = dict(base_batch_size=8)
