# Swin-T with the tasks of NYUD-v2.
_base_ = './swin-t.py'
tasks = ('nyud_semseg', 'depth', 'normals', 'edge')

model = dict(tasks=tasks, backbone=dict(tasks=tasks))
