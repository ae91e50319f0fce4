"""What the transforms of this package share."""

from __future__ import annotations

from mmcv.transforms import BaseTransform

from .geometry import VECTOR_INTERPOLATIONS

__all__ = ['MultiTaskTransform', 'check_vector_interpolation', 'colour', 'number_range']


class MultiTaskTransform(BaseTransform):
    """A transform whose `repr` shows its public attributes."""

    def __repr__(self) -> str:
        shown = ', '.join(f'{key}={value!r}' for key, value in vars(self).items() if not key.startswith('_'))
        return f'{type(self).__name__}({shown})'


def check_vector_interpolation(value: str) -> str:
    """The value, if it is one that exists; else ValueError."""
    if value not in VECTOR_INTERPOLATIONS:
        raise ValueError(f'vector_interpolation must be one of {VECTOR_INTERPOLATIONS}, got {value!r}')
    return value


def colour(value: float | tuple[float, ...] | list[float]) -> tuple[float, ...]:
    """A grey level, or blue, green and red, as a tuple of three; else ValueError."""
    values = (value,) * 3 if isinstance(value, (int, float)) else tuple(value)
    if len(values) != 3 or not all(0 <= v <= 255 for v in values):
        raise ValueError(f'pad_val must be a number or (blue, green, red) in 0..255, got {value!r}')
    return values


def number_range(name: str, value: tuple[float, float] | list[float]) -> tuple[float, float]:
    """The value as (low, high), if it is one; else ValueError naming the argument."""
    values = tuple(value)
    if len(values) != 2 or not values[0] <= values[1]:
        raise ValueError(f'{name} must be (low, high) with low <= high, got {value!r}')
    return values
