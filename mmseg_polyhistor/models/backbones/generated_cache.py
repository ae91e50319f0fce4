"""What a method generated, kept for evaluation until one of its parameters changes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

__all__ = ['GeneratedCache']

KEPT = 16  # sets of tasks: more than any model asks for, task by task and all at once


class GeneratedCache:
    """Generated weights per set of tasks.

    Torch counts the changes of every parameter, and a cached value is given out only while all counts and addresses are
    those that it was made under. Changes through `.data` are not counted: `clear` is for those.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, ...], tuple[tuple, Any]] = OrderedDict()

    def __deepcopy__(self, memo: dict) -> GeneratedCache:
        return type(self)()

    def __reduce__(self) -> tuple:
        return type(self), ()

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def get(self, method: nn.Module, tasks: tuple[str, ...]) -> Any | None:
        """What was put for the tasks, or None if there is nothing or a parameter of the method has changed."""
        state, value = self._kept.get(tasks, (None, None))
        return value if state is not None and state == _state(method) else None

    def put(self, method: nn.Module, tasks: tuple[str, ...], value: Any) -> None:
        """Keep a value; not where torch does not count changes (parameters made in inference mode)."""
        state = _state(method)
        if state is None:
            return
        self._kept[tasks] = state, value
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)


def _state(method: nn.Module) -> tuple | None:
    tensors = [*method.parameters(), *method.buffers()]
    if any(t.is_inference() for t in tensors):
        return None
    return tuple((t._version, t.data_ptr(), t.dtype) for t in tensors)
