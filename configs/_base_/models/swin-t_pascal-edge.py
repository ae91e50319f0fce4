# Swin-T with a fifth decoder, for edges.
_base_ = './swin-t.py'
tasks = ('semseg', 'human_parts', 'saliency', 'normals', 'edge')

model = dict(tasks=tasks, backbone=dict(tasks=tasks))
