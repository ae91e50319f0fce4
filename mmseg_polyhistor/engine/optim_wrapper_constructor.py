"""An optimiser over the trainable parameters alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import Registry
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS
from torch import nn

__all__ = ['TrainableOptimWrapperConstructor']


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor, which sees the trainable parameters only.

    The default one hands frozen parameters to the optimiser too, or, with a `paramwise_cfg`, logs a warning for each
    of them: some two hundred lines for a frozen Swin. Everything about `paramwise_cfg` stays as it is.

    Args:
        optim_wrapper_cfg: Config of the optimiser wrapper, with the key `optimizer`.
        paramwise_cfg: Per-parameter options. Defaults to None.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimiser wrapper.

        Raises:
            ValueError: if the model has no trainable parameter, the optimiser is not registered, or `clip_grad` holds
                what torch's clipping does not take.
        """
        name = self.optimizer_cfg.get('type')
        if isinstance(name, str) and OPTIMIZERS.get(name) is None:
            raise ValueError(
                f'optim_wrapper.optimizer.type={name!r} is not registered; registered are {_registered(OPTIMIZERS)}'
            )
        if not any(p.requires_grad for p in model.parameters()):
            raise ValueError(f'{type(model).__name__} has no trainable parameter: nothing to optimise')
        with _frozen_hidden(model):
            wrapper = super().__call__(model)
        if wrapper.clip_grad_kwargs:
            allowed = list(inspect.signature(wrapper.clip_func).parameters)[1:]
            if unknown := [key for key in wrapper.clip_grad_kwargs if key not in allowed]:
                raise ValueError(
                    f'optim_wrapper.clip_grad: torch.nn.utils.{wrapper.clip_func.__name__} takes no {unknown}; allowed: '
                    f"{allowed}, and type='norm' or 'value'"
                )
        return wrapper


def _registered(registry: Registry) -> list[str]:
    """The names in a registry and its parents."""
    above = _registered(registry.parent) if registry.parent is not None else []
    return sorted({*registry.module_dict, *above})


@contextmanager
def _frozen_hidden(model: nn.Module) -> Iterator[None]:
    """Take the frozen parameters off their modules for the duration of the block."""
    whole = [(m._parameters, dict(m._parameters)) for m in model.modules()]
    try:
        for own, before in whole:
            for name, parameter in before.items():
                if parameter is not None and not parameter.requires_grad:
                    del own[name]
        yield
    finally:
        for own, before in whole:
            own.clear()
            own.update(before)
