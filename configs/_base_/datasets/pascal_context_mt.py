# PASCAL-Context multi-task (PASCAL_MT): 4,998 train and 5,105 val images, 512 x 512. All four tasks; for some of them
# set tasks=('semseg', ...) in each data set, in the model and in its backbone.
dataset_type = 'PascalContextMTDataset'
data_root = 'data/PASCAL_MT'
parts_cache_dir = 'data/PASCAL_MT_parts_cache'  # parsed PASCAL-Part files; None parses them every time
crop_size = (512, 512)
pad_val = (103.53, 116.28, 123.675)  # BGR, as the pipeline's images: the mean, which normalisation turns into 0

train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadMultiTaskAnnotations'),
    dict(type='MultiTaskRandomFlip', prob=0.5),
    dict(type='MultiTaskRandomRotate', degree=20.0, scale_range=(0.75, 1.25), pad_val=pad_val),
    dict(type='MultiTaskResize', scale=crop_size, keep_ratio=False),
    dict(type='PackMultiTaskInputs'),
]
# Labels are loaded behind the resize: predictions are compared at the image's own size.
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='MultiTaskResize', scale=crop_size, keep_ratio=False),
    dict(type='LoadMultiTaskAnnotations'),
    dict(type='PackMultiTaskInputs'),
]

train_dataloader = dict(
    batch_size=12,
    num_workers=8,
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
    batch_size=1,
    num_workers=8,
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

# The gain is taken against the paper's single-task row; give your own as reference=dict(semseg=..., ...).
val_evaluator = dict(type='MultiTaskMetric', reference='paper_pascal_context_swin_t')
test_evaluator = val_evaluator
