# Rendered scenes in PASCAL_MT's layout (640 train and 160 val images of 256 x 256), at 128 x 128 pixels. Predictions are compared
# at the images' own size. tools/dataset_converters/make_mini_pascal.py renders a data set of the same kind.
_base_ = './mini_pascal.py'
data_root = 'data/scenes'
crop_size = (128, 128)

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
train_dataloader = dict(batch_size=4, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
