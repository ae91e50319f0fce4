# PASCAL-Context multi-task with the borders of PASCAL-Context's regions as a fifth task.
_base_ = './pascal_context_mt.py'
label_tasks = ('semseg', 'human_parts', 'saliency', 'normals', 'edge')

train_dataloader = dict(dataset=dict(tasks=label_tasks))
val_dataloader = dict(dataset=dict(tasks=label_tasks))
test_dataloader = val_dataloader

# The paper has no single-task value for edges.
val_evaluator = dict(reference=None)
test_evaluator = val_evaluator
