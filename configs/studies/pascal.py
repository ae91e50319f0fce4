# The paper's table and later methods on PASCAL-Context, with a Swin-T of ImageNet-1k: every row is its own config as it is, with the
# paper's recipe and one learning rate for all. For a GPU: 60 epochs of batch 12 at 512 x 512 pixels for each run.
_base_ = './scenes_reduced.py'
title = 'PASCAL-Context, Swin-T'
data = '../_base_/datasets/pascal_context_mt.py'
schedule = '../_base_/schedules/adam_60e.py'
encoder = dict(_delete_=True)
encoders = dict(_delete_=True, imagenet=dict())
model = dict(_delete_=True)
runtime = dict(_delete_=True)
groups = {group: 1e-4 for group in _base_.groups}
rows = dict(
    _delete_=True,
    **{name: {key: value for key, value in row.items() if key != 'options'} for name, row in _base_.rows.items()})
search = None
