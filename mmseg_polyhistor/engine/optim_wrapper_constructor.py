"""An optimiser over the trainable parameters alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS
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
            ValueError: if the model has no trainable parameter.
        """
        if not any(p.requires_grad for p in model.parameters()):
            raise ValueError(f'{type(model).__name__} has no trainable parameter: nothing to optimise')
        with _frozen_hidden(model):
            return super().__call__(model)


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
