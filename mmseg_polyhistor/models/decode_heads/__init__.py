"""Decode heads of the project; any head of mmseg can serve a task as well."""

from .all_mlp_head import AllMLPHead

__all__ = ['AllMLPHead']
