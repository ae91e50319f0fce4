# The data that tools/dataset_converters/make_mini_pascal.py writes, in PASCAL_MT's layout; made for two CPU cores.
dataset_type = 'PascalContextMTDataset'
data_root = 'data/mini_pascal'
parts_cache_dir = None
crop_size = (96, 96)

train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadMultiTaskAnnotations'),
    dict(type='MultiTaskRandomFlip', prob=0.5),
    dict(type='MultiTaskRandomRotate', degree=0.0, scale_range=(0.75, 1.25)),
    dict(type='MultiTaskResize', scale=crop_size, keep_ratio=False),
    dict(type='PackMultiTaskInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='MultiTaskResize', scale=crop_size, keep_ratio=False),
    dict(type='LoadMultiTaskAnnotations'),
    dict(type='PackMultiTaskInputs'),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='ImageSets/Context/train.txt',
        parts_cache_dir=parts_cache_dir,
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='ImageSets/Context/val.txt',
        parts_cache_dir=parts_cache_dir,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='MultiTaskMetric')
test_evaluator = val_evaluator
