"""Parameters of the frozen network that a method tunes: held beside it as differences, one set per owner."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .checks import check_names
from .sites import BackboneLayout, Site

__all__ = ['TunedParameters']


class TunedParameters(nn.Module):
    """Differences to parameters of the backbone, such as its biases, norms or relative-position tables.

    The network that a task sees has stock value + difference; the stock values stay as they are, and no task sees
    another's. Differences start at 0, so a fresh network is the frozen one. (Without weight decay, training a
    difference is training the value: the gradients are the same. Weight decay pulls a difference to 0, that is, the
    value to the pretrained one.)

    Args:
        layout: The backbone's parameters.
        owners: Names of the sets: the tasks, or one name for all.
        groups: Groups of parameters, of those that the backbone's table lists; a parameter in several is held once.

    Raises:
        ValueError: if no parameter belongs to a group, or none is named.
    """

    def __init__(self, *, layout: BackboneLayout, owners: Sequence[str], groups: Sequence[str]) -> None:
        super().__init__()
        self.selected = layout.select_parameters(check_names('tuned', groups))
        self.groups = tuple(groups)
        self.differences = nn.ModuleDict(
            {
                owner: nn.ParameterDict(
                    {p.site.key: nn.Parameter(torch.empty(p.shape)) for p in self.selected}
                )
                for owner in owners
            }
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for p in self.parameters():
            nn.init.zeros_(p)

    def forward(self, owners: Sequence[str]) -> dict[Site, Tensor]:
        """Differences (len(owners), *shape) at every site."""
        return {
            p.site: torch.stack([self.differences[owner][p.site.key] for owner in owners])
            for p in self.selected
        }

    def extra_repr(self) -> str:
        return f'groups={self.groups}'
