"""Turn objects into the plain data that `torch.load(..., weights_only=True)` reads: no pickled class of anybody's."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

__all__ = ['NotPlainError', 'to_plain']

_LEAVES = (
    type(None), bool, int, float, complex, str, bytes,
    torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device,
)  # fmt: skip
_KINDS = 'biufcSUO'  # of numpy dtypes that have Python values: no dates, no records


class NotPlainError(ValueError):
    """An object has no plain form; the message gives its place."""


def to_plain(obj: Any, path: str = 'checkpoint') -> Any:
    """The plain form of an object, recursively; what is plain already is returned as it is, not copied.

    ======================================  =============================================================
    object                                  plain form
    ======================================  =============================================================
    tensor, number, str, bytes, None        itself (subclasses of the numbers and of str: the base's value)
    dict, OrderedDict, list, tuple          itself with plain content; `OrderedDict` keeps its attributes
    other mapping, named tuple, deque       dict, tuple, list
    set, frozenset                          list, sorted where the elements can be
    numpy scalar                            Python number, str or bytes
    numpy array                             tensor of the same dtype; list where torch lacks the dtype
    numpy dtype, path                       str
    ======================================  =============================================================

    Args:
        obj: The object. It is never changed.
        path: How a message names it. Defaults to 'checkpoint'.

    Raises:
        NotPlainError: if it, or something in it, has no plain form.
    """
    kind = type(obj)
    if kind in _LEAVES:
        return obj
    if isinstance(obj, Mapping):
        return _plain_mapping(obj, path)
    if isinstance(obj, list | tuple | deque):
        content = [to_plain(v, f'{path}[{i}]') for i, v in enumerate(obj)]
        if kind in (list, tuple):
            return obj if _same(content, obj) else kind(content)
        return tuple(content) if isinstance(obj, tuple) else content
    if isinstance(obj, set | frozenset):
        content = [to_plain(v, f'{path}{{{v!r}}}') for v in obj]
        try:
            return sorted(content)
        except TypeError:
            return content
    if isinstance(obj, np.ndarray) and obj.dtype.kind in _KINDS:
        return _plain_array(obj, path)
    if isinstance(obj, np.generic) and obj.dtype.kind in _KINDS and not isinstance(obj.item(), np.generic):
        return obj.item()
    if isinstance(obj, np.dtype | PurePath):
        return str(obj)
    for base in (int, float, str):
        if isinstance(obj, base) and not isinstance(obj, Enum | np.generic):
            return base.__new__(base, obj)
    raise NotPlainError(
        f'{path} is a {kind.__module__}.{kind.__qualname__}, which a safe checkpoint cannot hold: loading it would '
        'need to run code of that class. Store numbers, strings, tensors, lists or dicts instead'
    )


def _plain_mapping(obj: Mapping, path: str) -> dict:
    keys = [to_plain(k, f'key {k!r} of {path}') for k in obj]
    values = [to_plain(v, f'{path}[{k!r}]') for k, v in obj.items()]
    ordered = type(obj) is OrderedDict
    attributes = to_plain(vars(obj), f'attributes of {path}') if ordered else {}
    unchanged = type(obj) is dict or (ordered and attributes is vars(obj))
    if unchanged and _same(keys, obj) and _same(values, obj.values()):
        return obj
    plain = (OrderedDict if ordered else dict)(zip(keys, values, strict=True))
    if len(plain) != len(obj):
        raise NotPlainError(f'{path} has keys that are equal as plain data: {list(obj)}')
    if ordered:
        vars(plain).update(attributes)
    return plain


def _plain_array(obj: np.ndarray, path: str) -> Any:
    try:
        return torch.from_numpy(np.ascontiguousarray(obj).reshape(obj.shape).copy())
    except TypeError:  # strings, objects, and unsigned integers under old torch
        return to_plain(obj.tolist(), path)


def _same(new: list, old: Any) -> bool:
    return all(a is b for a, b in zip(new, old, strict=True))
