"""Checks of settings, with messages that name the setting, what was given and what is allowed."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import Any

from torch import nn

__all__ = [
    'check_flags',
    'check_keys',
    'check_keywords',
    'check_names',
    'check_positive',
    'check_scale',
    'constructor_keywords',
    'with_fixed',
]


def check_names(
    argument: str, names: Sequence[str], known: Collection[str] | None = None, what: str = 'known'
) -> tuple[str, ...]:
    """Names that are at least one, different, and known.

    Args:
        argument: What the names are given as.
        names: The names.
        known: Those that are allowed; None for any. Defaults to None.
        what: Of what kind those are, for the message. Defaults to 'known'.

    Raises:
        ValueError: if there is none, one is given twice or is unknown, or `names` is a string or no sequence.
    """
    if (
        not isinstance(names, Sequence)
        or isinstance(names, str)
        or not names
        or len(set(names)) != len(names)
    ):
        raise ValueError(f'{argument} must be a non-empty sequence of different names, got {names!r}')
    unknown = [] if known is None else [name for name in names if name not in known]
    if unknown:
        raise ValueError(f'{argument}: unknown {unknown}; {what}: {sorted(known) or "none"}')
    return tuple(names)


def check_keys(argument: str, names: Sequence[str]) -> tuple[str, ...]:
    """Different names that torch's `ModuleDict` takes as keys.

    Raises:
        ValueError: for what `check_names` refuses, for a dot, or for the name of one of its attributes.
    """
    for name in check_names(argument, names):
        if '.' in name or hasattr(nn.ModuleDict, name):
            raise ValueError(f'{argument}: {name!r} cannot be a key of a torch ModuleDict; take another name')
    return tuple(names)


def constructor_keywords(cls: type) -> set[str]:
    """The arguments that a class, or one of its bases, names in its constructor."""
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {
        name
        for base in cls.__mro__
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if parameter.kind in named
    } - {'self'}


def check_keywords(cls: type, given: Mapping[str, Any], refused: Collection[str] = ()) -> None:
    """Keyword arguments that a class, or one of its bases, names in its constructor.

    Python's own error would name the base that was the last to see the argument, and not what is allowed.

    Args:
        cls: The class.
        given: The arguments.
        refused: Arguments of a base that the class takes from nobody. Defaults to none.

    Raises:
        TypeError: names those that are unknown, and all that there are.
    """
    known = constructor_keywords(cls) - set(refused)
    if unknown := sorted(set(given) - known):
        raise TypeError(f'{cls.__name__} takes no {unknown}; it takes {sorted(known)}')


def check_flags(**flags: Any) -> None:
    """Settings that are on or off.

    Raises:
        ValueError: if one is no bool (the string 'False' would count as on).
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(f'{name} must be True or False, got {value!r}')


def check_positive(**sizes: Any) -> None:
    """Settings that are positive integers.

    Raises:
        ValueError: if one is not.
    """
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f'{name} must be a positive int, got {value!r}')


def check_scale(scale: Any) -> float:
    """A factor on what a method adds.

    Raises:
        ValueError: if it is no number, or 0, with which the method would do nothing.
    """
    if not isinstance(scale, Real) or isinstance(scale, bool) or scale == 0:
        raise ValueError(f'scale must be a number other than 0, got {scale!r}')
    return scale


def with_fixed(name: str, kwargs: dict[str, Any], **fixed: Any) -> dict[str, Any]:
    """Arguments that a method sets itself, beside those that it was given.

    Raises:
        ValueError: if one was given another value.
    """
    for key, value in fixed.items():
        if kwargs.get(key, value) != value:
            raise ValueError(f'{name} has {key}={value!r} by its definition, got {kwargs[key]!r}')
    return kwargs | fixed
