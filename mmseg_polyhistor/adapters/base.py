"""What every method offers to a backbone: the changes that it makes, for all tasks and sites at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .checks import check_flags, check_keys, check_names, check_scale
from .functional import AdapterWeights, Change, adapter, get_activation
from .sites import BackboneLayout, Site, check_positions
from .tuned import TunedParameters

__all__ = ['INSERTIONS', 'AdapterMethod', 'CannotMergeError', 'InsertedAdapter', 'resolve_tasks']

INSERTIONS = ('serial', 'parallel')
ALL_TASKS = 'all'  # the name of a set of parameters that all tasks share


class CannotMergeError(ValueError):
    """A method's changes cannot be written into the weights of a stock network; the message says why."""


class AdapterMethod(nn.Module):
    """Base of all methods: a module that owns trainable parameters and says what they change in a frozen backbone.

    `generate(tasks)` turns the parameters into changes, once per forward pass of the model, for all tasks and sites.
    The current task is an argument and never state of the module, so that recomputation of activations gives right
    gradients. Changes carry a leading axis of T, one entry per task, or of 1, where all tasks share them. The task
    streams part where features meet the first change of T tasks; a method whose changes are all shared never parts
    them, so the backbone runs once for all tasks.

    By itself the base tunes parameters of the frozen network, see `tuned`; subclasses add to `generate`.

    Args:
        layout: The backbone's widths, depths, linear maps and parameters.
        tasks: Names of the tasks.
        per_task: Whether each task has parameters of its own; False is one copy for all. Defaults to True.
        tuned: Groups of the backbone's parameters that are tuned beside it, such as 'bias', 'norm' or
            'relative_position_bias' (see `TunedParameters`). Defaults to (), none.

    Raises:
        ValueError: for tasks that are none or not unique, a task named like a method of torch's `ModuleDict`, a
            `per_task` that is no bool, or a group that the backbone does not have.
    """

    #: Whether the stream that all tasks share goes on beside the tasks' own. Such a method emits, where the streams
    #: part, weights of 1 + T rows, the shared stream's first; the tasks' streams then end with the stage.
    trunk = False

    def __init__(
        self,
        *,
        layout: BackboneLayout,
        tasks: Sequence[str],
        per_task: bool = True,
        tuned: Sequence[str] = (),
    ) -> None:
        super().__init__()
        check_flags(per_task=per_task)
        self.layout = layout
        self.tasks = check_keys('tasks', tasks)
        self.per_task = per_task
        self.owners = self.tasks if per_task else (ALL_TASKS,)
        self.tuned = TunedParameters(layout=layout, owners=self.owners, groups=tuned) if tuned else None

    def reset_parameters(self) -> None:
        """Draw the documented initial values afresh."""
        if self.tuned is not None:
            self.tuned.reset_parameters()

    def owners_of(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """Names of the sets of parameters that serve the given tasks: the tasks', or the one that all share.

        Raises:
            ValueError: if a task is unknown, named twice, or none is named.
        """
        tasks = resolve_tasks(tasks, self.tasks)
        return tasks if self.per_task else self.owners

    def generate(self, tasks: Sequence[str]) -> dict[Site, Change]:
        """The changes at every site for the given tasks, in their order.

        Raises:
            ValueError: if a task is unknown, named twice, or none is named.
        """
        owners = self.owners_of(tasks)
        return {} if self.tuned is None else self.tuned(owners)

    def adapt(self, x: Tensor, weights: Any) -> Tensor:
        """Apply what `generate` gave for a site 'attn' or 'ffn' to features (S, B, N, d).

        Raises:
            NotImplementedError: if the method has no adapters.
        """
        raise NotImplementedError(
            f'{type(self).__name__} emits weights for an adapter but does not define adapt()'
        )

    @property
    def insertion(self) -> str:
        """Where adapters stand, see `InsertedAdapter`."""
        return 'serial'

    def adapter_as_linear(self, weights: Any) -> tuple[Tensor, Tensor]:
        """One task's adapter as a linear map, matrix (d, d) and bias (d,), for merging.

        Raises:
            CannotMergeError: if it is none; the message says why.
        """
        raise CannotMergeError(f'{type(self).__name__} does not say how its adapters could be merged')

    def extra_repr(self) -> str:
        return f'tasks={self.tasks}, per_task={self.per_task}'


class InsertedAdapter(AdapterMethod):
    """Base of the methods that put an adapter after the attention or the feed-forward net of blocks.

    A subclass emits `AdapterWeights` at sites 'attn' and 'ffn'.

    Args:
        positions: Where adapters sit: 'attn', 'ffn' or both. Defaults to ('ffn',).
        insertion: 'serial' puts the adapter behind the sub-layer, inside the residual branch:
            x + DropPath(adapter(f(x))). 'parallel' puts it on the shortcut: adapter(x) + DropPath(f(x)).
            Defaults to 'serial'.
        activation: Name of the non-linearity, a key of `ACTIVATIONS`. Defaults to 'silu'.
        scale: Factor on the adapter's output. Defaults to 1.0.
        pre_norm: Whether a LayerNorm stands before the adapter's first map. Defaults to False.
        post_norm: Whether a LayerNorm stands behind its second map. Defaults to True.
        **kwargs: See `AdapterMethod`.

    Raises:
        ValueError: for an unknown position, insertion or activation, a scale of 0, or for what `AdapterMethod` refuses.
    """

    def __init__(
        self,
        *,
        positions: Sequence[str] = ('ffn',),
        insertion: str = 'serial',
        activation: str = 'silu',
        scale: float = 1.0,
        pre_norm: bool = False,
        post_norm: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        check_flags(pre_norm=pre_norm, post_norm=post_norm)
        if insertion not in INSERTIONS:
            raise ValueError(f'insertion must be one of {INSERTIONS}, got {insertion!r}')
        self.positions = check_positions(positions)
        self._insertion = insertion
        self.activation_name = activation
        self.activation = get_activation(activation)
        self.scale = check_scale(scale)
        self.pre_norm = pre_norm
        self.post_norm = post_norm
        self.sites = tuple(self.layout.sites(self.positions))

    @property
    def insertion(self) -> str:
        return self._insertion

    def adapt(self, x: Tensor, weights: AdapterWeights) -> Tensor:
        """Apply one site's adapter to features (S, B, N, d); see `functional.adapter`."""
        return adapter(x, weights, activation=self.activation, scale=self.scale)

    def adapter_as_linear(self, weights: AdapterWeights) -> tuple[Tensor, Tensor]:
        obstacles = [f'the activation {self.activation_name!r}'] if self.activation_name != 'identity' else []
        obstacles += ['a LayerNorm'] if self.pre_norm or self.post_norm else []
        if obstacles:
            raise CannotMergeError(
                f'{type(self).__name__} is not linear ({" and ".join(obstacles)} between its maps), so no weight of '
                'the frozen network can take its place'
            )
        down, down_bias, up, up_bias = (w[0] for w in weights[:4])
        matrix = up @ down
        matrix = self.scale * (matrix + matrix.new_ones(matrix.shape[0]).diag())
        return matrix, self.scale * (up @ down_bias + up_bias)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, positions={self.positions}, insertion={self.insertion!r}'


def resolve_tasks(tasks: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Check that all tasks are known, and none is named twice.

    Raises:
        ValueError: names the unknown ones, or what is wrong with the sequence.
    """
    unknown = [t for t in check_names('tasks', tasks) if t not in known]
    if unknown:
        raise ValueError(f'unknown tasks {unknown}; this model was built for {tuple(known)}')
    return tuple(tasks)
