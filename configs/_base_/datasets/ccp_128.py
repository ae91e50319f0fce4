# Clothing Co-Parsing (Yang et al., CVPR 2014): 1,004 street photographs of height 256, at 96 x 128 pixels, with body parts (PASCAL's
# seven classes, derived from the garments) and silhouettes. Predictions are compared at the photographs' own size.
crop_size = (128, 96)  # height, width
dataset = dict(
    type='MultiTaskDataset',
    tasks=('human_parts', 'saliency'),
    data_root='data/ccp',
    data_prefix=dict(img_path='images', human_parts='human_parts', saliency='saliency'),
    suffixes=dict(img_path='.jpg', human_parts='.png', saliency='.png'),
    sources=dict(
        human_parts=dict(path='human_parts', reader=dict(type='index_image')),
        saliency=dict(path='saliency', reader=dict(type='grey_image'))))
load = dict(type='LoadImageFromFile', imdecode_backend='pillow')
labels = dict(type='LoadMultiTaskAnnotations')
resize = dict(type='MultiTaskResize', scale=crop_size[::-1], keep_ratio=False)
pack = dict(type='PackMultiTaskInputs')
flip = dict(type='MultiTaskRandomFlip', prob=0.5)
zoom = dict(type='MultiTaskRandomRotate', degree=0.0, scale_range=(0.75, 1.25))
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(dataset, ann_file='train.txt', pipeline=[load, labels, flip, zoom, resize, pack]))
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(dataset, ann_file='val.txt', test_mode=True, pipeline=[load, resize, labels, pack]))
test_dataloader = val_dataloader
val_evaluator = dict(type='MultiTaskMetric')
test_evaluator = val_evaluator
