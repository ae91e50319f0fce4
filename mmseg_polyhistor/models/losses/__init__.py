"""Losses of the kinds of task that mmseg has none for; semantic tasks use mmseg's `CrossEntropyLoss`."""

from .class_balanced_bce import ClassBalancedBCELoss
from .scalar_l1 import ScalarL1Loss
from .unit_vector_l1 import UnitVectorL1Loss

__all__ = ['ClassBalancedBCELoss', 'ScalarL1Loss', 'UnitVectorL1Loss']
