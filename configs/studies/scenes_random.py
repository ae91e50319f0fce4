# The control of scenes_reduced.py: the same methods, recipe and learning rates, with the same network at random initialisation.
_base_ = './scenes_reduced.py'
title = 'Scenes, random Swin-nano, reduced protocol'
encoders = dict(_delete_=True, random=dict())
search = None
