"""What every adapter method offers to a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from .functional import AdapterWeights, adapter, get_activation
from .sites import BackboneLayout, Site, check_positions

__all__ = ['INSERTIONS', 'AdapterMethod', 'resolve_tasks']

INSERTIONS = ('serial', 'parallel')


class AdapterMethod(nn.Module):
    """Base of all methods that put an adapter after the attention or the feed-forward net of frozen blocks.

    A subclass owns the trainable parameters and turns them into weights, once per forward pass of the model, for
    all tasks and sites: `generate(tasks)`. The backbone then calls `adapt` at every site. The current task is an
    argument of both and never state of the module, so that recomputation of activations gives right gradients.

    Args:
        layout: Widths and depths of the backbone.
        tasks: Names of the tasks, each with weights of its own.
        positions: Where adapters sit: 'attn', 'ffn' or both. Defaults to ('ffn',).
        insertion: 'serial' puts the adapter behind the sub-layer, inside the residual branch:
            x + DropPath(adapter(f(x))). 'parallel' puts it on the shortcut: adapter(x) + DropPath(f(x)).
            Defaults to 'serial'.
        activation: Name of the non-linearity, a key of `ACTIVATIONS`. Defaults to 'silu'.
        scale: Factor on the adapter's output. Defaults to 1.0.
        pre_norm: Whether a LayerNorm stands before the adapter's first map. Defaults to False.
        post_norm: Whether a LayerNorm stands behind its second map. Defaults to True.

    Raises:
        ValueError: for an unknown position, insertion or activation, or for tasks that are none or not unique.
    """

    def __init__(
        self,
        *,
        layout: BackboneLayout,
        tasks: Sequence[str],
        positions: Sequence[str] = ('ffn',),
        insertion: str = 'serial',
        activation: str = 'silu',
        scale: float = 1.0,
        pre_norm: bool = False,
        post_norm: bool = True,
    ) -> None:
        super().__init__()
        if insertion not in INSERTIONS:
            raise ValueError(f'insertion must be one of {INSERTIONS}, got {insertion!r}')
        if isinstance(tasks, str) or not tasks or len(set(tasks)) != len(tuple(tasks)):
            raise ValueError(f'tasks must be a non-empty sequence of different names, got {tasks!r}')
        self.layout = layout
        self.tasks = tuple(tasks)
        self.positions = check_positions(positions)
        self.insertion = insertion
        self.activation = get_activation(activation)
        self.scale = scale
        self.pre_norm = pre_norm
        self.post_norm = post_norm

    def reset_parameters(self) -> None:
        """Draw the documented initial values afresh."""
        raise NotImplementedError

    def generate(self, tasks: Sequence[str]) -> Mapping[Site, AdapterWeights]:
        """Weights of every site for the given tasks, in their order.

        Raises:
            ValueError: if a task is unknown to the method.
        """
        raise NotImplementedError

    def adapt(self, x: Tensor, weights: AdapterWeights, streams: int) -> Tensor:
        """Apply one site's adapter to tokens (S * B, N, d) of S = `streams` streams; see `functional.adapter`."""
        return adapter(x, weights, streams=streams, activation=self.activation, scale=self.scale)

    def extra_repr(self) -> str:
        return f'tasks={self.tasks}, positions={self.positions}, insertion={self.insertion!r}'


def resolve_tasks(tasks: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Check that all tasks are known, and none is named twice.

    Raises:
        ValueError: names the unknown ones, or what is wrong with the sequence.
    """
    if isinstance(tasks, str) or not tasks or len(set(tasks)) != len(tuple(tasks)):
        raise ValueError(f'tasks must be a non-empty sequence of different names, got {tasks!r}')
    unknown = [t for t in tasks if t not in known]
    if unknown:
        raise ValueError(f'unknown tasks {unknown}; this model was built for {tuple(known)}')
    return tuple(tasks)
