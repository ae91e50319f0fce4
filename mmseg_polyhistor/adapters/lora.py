"""Low-rank changes of the frozen linear maps: LoRA and MTLoRA."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import ALL_TASKS, AdapterMethod, resolve_tasks
from .checks import check_flags, check_scale, with_fixed
from .functional import Change, LowRankWeights, stack_owners
from .matrices import INIT_STD
from .sites import BackboneLayout, LinearSite, Site
from .sizes import resolve_rank

__all__ = ['LoRA', 'MTLoRA']


class _LowRank(nn.Module):
    """B A LN(x) for one linear map: A (r, in), B (out, r), and the LayerNorm's gain and shift if there is one."""

    def __init__(self, linear: LinearSite, *, rank: int, scale: float, pre_norm: bool) -> None:
        super().__init__()
        check_flags(pre_norm=pre_norm)
        rank = resolve_rank(rank, linear.out_features, linear.in_features)
        self.scale = check_scale(scale)
        self.down = nn.Parameter(torch.empty(rank, linear.in_features))
        self.up = nn.Parameter(torch.empty(linear.out_features, rank))
        for part in ('gain', 'shift'):
            parameter = nn.Parameter(torch.empty(linear.in_features)) if pre_norm else None
            self.register_parameter(f'pre_{part}', parameter)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.down, std=INIT_STD)
        nn.init.zeros_(self.up)
        if self.pre_gain is not None:
            nn.init.ones_(self.pre_gain)
            nn.init.zeros_(self.pre_shift)

    def forward(self) -> LowRankWeights:
        return LowRankWeights(self.down, self.scale * self.up, self.pre_gain, self.pre_shift)


def _low_rank_sets(linears: Sequence[LinearSite], owners: Sequence[str], **options) -> nn.ModuleDict:
    """One `_LowRank` per owner and linear map."""
    return nn.ModuleDict(
        {
            o: nn.ModuleDict({linear.site.key: _LowRank(linear, **options) for linear in linears})
            for o in owners
        }
    )


class LoRA(AdapterMethod):
    """LoRA: W x + s B A LN(x) for linear maps of the frozen network (Hu et al., ICLR 2022; the paper's row "LoRA").

    A starts at N(0, 0.01^2), B at 0, so a fresh network equals the frozen one. The paper's benchmark has a LayerNorm
    of LoRA's own in front of A; without it (`pre_norm=False`, LoRA as published) the change can be merged into W.

    Args:
        rank: r, or -k for max(min(in, out) // k, 1). Defaults to 4.
        targets: Which linear maps: 'qkv', 'proj', 'fc1', 'fc2', 'reduction' (patch merging). Defaults to ('qkv',).
        scale: s (in LoRA's terms alpha / r). Defaults to 1.0.
        pre_norm: Whether a LayerNorm stands in front of A. Defaults to True.
        **kwargs: See `AdapterMethod`.

    Raises:
        ValueError: if the rank is 0 or exceeds a map's smaller side, if the backbone has no map of a role, or for what
            `AdapterMethod` refuses.

    Shape:
        r (in + out) (+ 2 in for the LayerNorm) parameters per linear map and task.
    """

    def __init__(
        self,
        *,
        layout: BackboneLayout,
        rank: int = 4,
        targets: Sequence[str] = ('qkv',),
        scale: float = 1.0,
        pre_norm: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(layout=layout, **kwargs)
        self.linears = layout.select_linears(targets)
        self.sets = _low_rank_sets(self.linears, self.owners, rank=rank, scale=scale, pre_norm=pre_norm)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for one in self.sets.values():
            for change in one.values():
                change.reset_parameters()

    def generate(self, tasks: Sequence[str]) -> dict[Site, Change]:
        changes = super().generate(tasks)
        owners = self.owners_of(tasks)
        for linear in self.linears:
            changes[linear.site] = stack_owners(self.sets[owner][linear.site.key]() for owner in owners)
        return changes


class MTLoRA(AdapterMethod):
    """MTLoRA: low-rank changes that all tasks share in every block, and the tasks' own in each stage's last block.

    One stream of features serves all tasks. In a stage's last block the tasks' streams part from it where the first
    task-specific change stands, see W + s B A + s B_t A_t, and end with the stage: they are what the decoders read. The
    shared stream sees W + s B A and goes on to the next stage; behind the last stage nobody reads it, so it ends where
    the tasks part. A starts at Kaiming's uniform distribution (as of a linear layer), B at 0.

    The published totals (Swin-T, four tasks, with that paper's decoders) are 4.95, 6.08 and 8.34 M for r = 16, 32, 64.
    Their differences are those of shared changes on qkv, proj, fc1 and fc2 of all blocks, 70,656 parameters per
    unit of rank, beside a task-specific part that does not grow with r. That part is read as task rank 4 on proj, fc1
    and fc2 (276,480 parameters): with the norms, relative-position tables, patch embedding and patch merging that the
    method trains as well, and the 1.94 M decoders of that paper, it gives the three totals.

    Args:
        rank: r of the shared changes. Defaults to 64.
        task_rank: Rank of the tasks' own. Defaults to 4.
        scale: s. Defaults to 4.0.
        targets: Linear maps with a shared change. Defaults to ('qkv', 'proj', 'fc1', 'fc2').
        task_targets: Linear maps of a stage's last block with changes of each task. Defaults to ('proj', 'fc1', 'fc2').
        tuned: Groups of stock parameters that are trained, one copy for all tasks. Defaults to ('norm',
            'relative_position_bias', 'patch_embed', 'patch_merging').
        **kwargs: See `AdapterMethod`; `per_task` is False, as everything outside the last blocks is shared.

    Raises:
        ValueError: for unfit ranks or targets, a task target without a shared change, or `per_task=True`.

    Reference:
        Agiza, Neseem, Reda, "MTLoRA: A Low-Rank Adaptation Approach for Efficient Multi-Task Learning", CVPR 2024.
    """

    trunk = True

    def __init__(
        self,
        *,
        layout: BackboneLayout,
        rank: int = 64,
        task_rank: int = 4,
        scale: float = 4.0,
        targets: Sequence[str] = ('qkv', 'proj', 'fc1', 'fc2'),
        task_targets: Sequence[str] = ('proj', 'fc1', 'fc2'),
        tuned: Sequence[str] = ('norm', 'relative_position_bias', 'patch_embed', 'patch_merging'),
        **kwargs,
    ) -> None:
        kwargs = with_fixed(type(self).__name__, kwargs, per_task=False)
        super().__init__(layout=layout, tuned=tuned, **kwargs)
        self.linears = layout.select_linears(targets)
        last = [(stage, depth - 1) for stage, depth in enumerate(layout.depths)]
        self.task_linears = tuple(
            linear
            for linear in layout.select_linears(task_targets, 'task_targets')
            if linear.site[:2] in last
        )
        if alone := {linear.role for linear in self.task_linears} - {linear.role for linear in self.linears}:
            raise ValueError(f'task_targets {sorted(alone)} must be among targets, got {tuple(targets)}')
        if outside := set(task_targets) - {linear.role for linear in self.task_linears}:
            raise ValueError(f'task_targets {sorted(outside)} are no linear maps of a block')
        self.sets = _low_rank_sets(self.linears, (ALL_TASKS,), rank=rank, scale=scale, pre_norm=False)
        self.task_sets = _low_rank_sets(
            self.task_linears, self.tasks, rank=task_rank, scale=scale, pre_norm=False
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for group in (self.sets, self.task_sets):
            for one in group.values():
                for change in one.values():
                    nn.init.kaiming_uniform_(change.down, a=5**0.5)
                    nn.init.zeros_(change.up)

    def generate(self, tasks: Sequence[str]) -> dict[Site, Change]:
        tasks = resolve_tasks(tasks, self.tasks)
        changes = super().generate(tasks)
        own = {linear.site for linear in self.task_linears}
        for linear in self.linears:
            shared = self.sets[ALL_TASKS][linear.site.key]()
            if linear.site in own:
                trunk = linear.site.stage < len(self.layout.depths) - 1
                changes[linear.site] = self._part(
                    shared, [self.task_sets[t][linear.site.key]() for t in tasks], trunk
                )
            else:
                changes[linear.site] = stack_owners([shared])
        return changes

    @staticmethod
    def _part(shared: LowRankWeights, own: Sequence[LowRankWeights], trunk: bool) -> LowRankWeights:
        """One row per task, [B B_t] [A; A_t], behind a row of the shared stream, [B 0] [A; 0], where it goes on."""
        rows: list[tuple[Tensor, Tensor]] = [(o.down, o.up) for o in own]
        if trunk:
            rows.insert(0, (torch.zeros_like(own[0].down), torch.zeros_like(own[0].up)))
        return LowRankWeights(
            torch.stack([torch.cat([shared.down, down]) for down, _ in rows]),
            torch.stack([torch.cat([shared.up, up], dim=1) for _, up in rows]),
        )
