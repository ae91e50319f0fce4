# NYUD-v2 multi-task: 795 training and 654 test images, in any of the four layouts in use (480 x 640 or 425 x 560), which is
# detected. All images of a layout have one size: nothing is resized, and the network pads to a multiple of 32.
dataset_type = 'NYUDMTDataset'
data_root = 'data/NYUDv2'
pad_val = (103.53, 116.28, 123.675)  # BGR, as the pipeline's images: the mean, which normalisation turns into 0

# A zoom divides the depths by its factor; rooms are photographed upright, so nothing is rotated.
train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadMultiTaskAnnotations'),
    dict(type='MultiTaskRandomFlip', prob=0.5),
    dict(type='MultiTaskRandomRotate', degree=0.0, scale_range=(1.0, 1.5), pad_val=pad_val),
    dict(type='PackMultiTaskInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadMultiTaskAnnotations'),
    dict(type='PackMultiTaskInputs'),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type, data_root=data_root, ann_file='gt_sets/train.txt', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='gt_sets/val.txt',
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='MultiTaskMetric')
test_evaluator = val_evaluator
