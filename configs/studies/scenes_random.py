# The control of scenes_reduced.py: the same methods, recipe and learning rates, with the same network at random initialisation.
_base_ = './scenes_reduced.py'
title = 'Scenes, random Swin-nano, reduced protocol'
encoders = dict(_delete_=True, random=dict())
# Would what changes features want a larger rate where the features are random? The decoders' rate is that of scenes_reduced.py.
search = dict(
    _delete_=True, rates=dict(adapter=[1e-4, 3e-4, 1e-3, 3e-3], polyhistor=[1e-4, 3e-4, 1e-3, 3e-3]), encoder='random', train=512, val=-128)
