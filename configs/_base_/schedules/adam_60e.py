# The recipe of the paper's line of work: Adam, 60 epochs of batch 12, rate decayed linearly per iteration to 0.
max_epochs = 60
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainableOptimWrapperConstructor',
    optimizer=dict(type='Adam', lr=1e-4, weight_decay=1e-4))
param_scheduler = [
    dict(type='PolyLR', power=1.0, eta_min=0.0, begin=0, end=max_epochs, by_epoch=True, convert_to_iter_based=True)
]
train_cfg = dict(type='SeededEpochBasedTrainLoop', max_epochs=max_epochs, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=12)
