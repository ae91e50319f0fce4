"""Loading weights with every key accounted for, under the loaders of mmengine as well, which only warn."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

__all__ = ['KeyDifferences', 'StrictLoading', 'key_differences']

#: Ends of keys that need not be in a checkpoint: a counter that nothing reads, and an index that follows from the window.
DERIVED = ('num_batches_tracked', 'relative_position_index')


@dataclass
class KeyDifferences:
    """Where the weights of a checkpoint and those of a model differ; falsy where they do not.

    `str` lists every difference, with keys that share a module put together.
    """

    missing: list[str] = field(default_factory=list)  # in the model, not in the checkpoint
    unexpected: list[str] = field(default_factory=list)  # in the checkpoint, not in the model
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)  # given, wanted
    present: tuple[frozenset[str], frozenset[str]] = (
        frozenset(),
        frozenset(),
    )  # all keys of checkpoint and model

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)

    def __str__(self) -> str:
        given, wanted = self.present
        lines = []
        for title, keys, others in (
            ('in the model, not in the checkpoint', self.missing, given),
            ('in the checkpoint, not in the model', self.unexpected, wanted),
        ):
            if keys:
                lines += [f'{title} ({len(keys)}):', *(f'  {group}' for group in _grouped(keys, others))]
        if self.shapes:
            lines.append(f'of other shapes ({len(self.shapes)}):')
            lines += [
                f'  {key}: {given} in the checkpoint, {wanted} in the model'
                for key, (given, wanted) in self.shapes.items()
            ]
        return '\n'.join(lines)


def key_differences(model: nn.Module, state_dict: Mapping[str, Any], prefix: str = '') -> KeyDifferences:
    """Compare weights with those that a model wants.

    Frozen weights of a backbone may be absent where the state dict holds a record to restore them by (see
    `engine.frozen_backbone`), and so may the keys of `DERIVED`.

    Args:
        model: The model. Nothing is changed.
        state_dict: Weights by key.
        prefix: Start of the keys that belong to the model; others are left out. Defaults to '', all.
    """
    own = model.state_dict()
    given = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
    optional = {k for k in own if k.endswith(DERIVED)}
    for name, module in model.named_modules():
        start = f'{name}.' if name else ''
        record = getattr(module, 'RECORD_KEY', None)
        if record is not None and start + record in given:
            del given[start + record]
            optional |= {start + k for k in module.frozen_weights()}
    return KeyDifferences(
        missing=[k for k in own if k not in given and k not in optional],
        unexpected=[k for k in given if k not in own and not k.endswith(DERIVED)],
        shapes={
            k: (tuple(given[k].shape), tuple(v.shape))
            for k, v in own.items()
            if isinstance(given.get(k), Tensor) and given[k].shape != v.shape
        },
        present=(frozenset(given), frozenset(own)),
    )


class StrictLoading:
    """Mixin of modules that refuse a state dict that does not fit, whoever loads it.

    `Runner`, `init_model`, `MMSegInferencer` and `EMAHook` call mmengine's loader without `strict`: it logs a warning
    and goes on with whatever weights the model has. Here a difference is an error that lists all of them.

    The user asks for less by `partial_loading` (then differences are a warning), or by
    `module.load_state_dict(..., strict=False)`, torch's way, which returns them.
    """

    partial_loading = False
    _unaccounted = False  # while torch's load_state_dict(strict=False) runs

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """torch's method: `strict=False` takes what fits and returns the differences.

        Raises:
            RuntimeError: if the weights do not fit.
        """
        if strict:
            return super().load_state_dict(state_dict, strict, assign)
        modules = [m for m in self.modules() if isinstance(m, StrictLoading)]
        for module in modules:
            module._unaccounted = True
        try:
            return super().load_state_dict(state_dict, strict, assign)
        finally:
            for module in modules:
                del module._unaccounted

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if not self._unaccounted and (differences := key_differences(self, state_dict, prefix)):
            name = type(self).__name__
            if not self.partial_loading:
                raise RuntimeError(
                    f'the weights do not fit this {name}, and none were loaded:\n{differences}\nA checkpoint fits the '
                    'config that it was trained with: compare tasks, method, ranks and backbone. To take what fits and '
                    f'leave the rest as initialised, set partial_loading=True in the config of {name}'
                )
            print_log(
                f'{name}: partial_loading takes what fits, and leaves:\n{differences}',
                logger='current',
                level=logging.WARNING,
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def _grouped(keys: Iterable[str], others: frozenset[str]) -> list[str]:
    """Keys, put together as `module.* (n keys)` where nothing of the module is among the other side's keys."""
    modules = {other[: i + 1] for other in others for i, c in enumerate(other) if c == '.'}
    groups: dict[str, int] = {}
    for key in keys:
        starts = [key[: i + 1] for i, c in enumerate(key) if c == '.']
        group = next((f'{start}*' for start in starts if start not in modules), key)
        groups[group] = groups.get(group, 0) + 1
    return [f'{group} ({n} keys)' if group.endswith('*') else group for group, n in groups.items()]
