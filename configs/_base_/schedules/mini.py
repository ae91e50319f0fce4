# A few minutes on two CPU cores. The encoder is random, so everything has to come from adapters and decoders: larger learning
# rates than the paper's. Decoders and generated adapters have rates of their own, the best of the search of
# configs/studies/mini.py: Polyhistor-Lite's mIoU there is 26.1 on semseg and 22.5 on human parts, and 22.3 and 20.0 with 2e-3 for
# both.
max_epochs = 20
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainableOptimWrapperConstructor',
    optimizer=dict(type='Adam', lr=5e-3, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={'backbone.': dict(lr_mult=0.2)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=1, by_epoch=True, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=0.0, begin=1, end=max_epochs, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(type='SeededEpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
