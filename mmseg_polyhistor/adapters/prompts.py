"""Visual prompts: learned tokens in the attention of a frozen Swin."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .base import AdapterMethod
from .checks import check_flags, check_positive
from .functional import Change, Prompts
from .sites import Site

__all__ = ['VisualPrompt']


class VisualPrompt(AdapterMethod):
    """VPT: learned tokens beside those of every window (Jia et al., "Visual Prompt Tuning", ECCV 2022).

    The tokens of a window also attend to the prompts, without a relative-position bias and unmasked; what the
    prompts themselves would become is dropped behind the attention, so it is not computed. The paper's rows are
    "VPT-shallow", prompts in the first block, and "VPT-deep", own ones in every block. Prompts start uniform within
    +-sqrt(6 / (3 p^2 + d)) for patches of p x p pixels, as in VPT. A fresh network does not equal the frozen one.

    Args:
        prompts: Number of prompts per block. Defaults to 50.
        deep: Prompts in every block instead of the first one. Defaults to False.
        norm: Whether the prompts pass the block's first LayerNorm, like the tokens that they stand beside (as in VPT,
            where prompts are part of a layer's input). Defaults to True.
        patch_size: p, for the initial values. Defaults to 4.
        **kwargs: See `AdapterMethod`.

    Raises:
        ValueError: if `prompts` or `patch_size` is no positive integer, or for what `AdapterMethod` refuses.

    Shape:
        `prompts` * d parameters per task and block.
    """

    def __init__(
        self, *, prompts: int = 50, deep: bool = False, norm: bool = True, patch_size: int = 4, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        check_positive(prompts=prompts, patch_size=patch_size)
        check_flags(deep=deep, norm=norm)
        self.norm = norm
        self.patch_size = patch_size
        depths = self.layout.depths if deep else (1,)
        self.sites = tuple(Site(i, j, 'prompts') for i, depth in enumerate(depths) for j in range(depth))
        self.sets = nn.ModuleDict(
            {
                owner: nn.ParameterDict(
                    {
                        s.key: nn.Parameter(torch.empty(prompts, self.layout.widths[s.stage]))
                        for s in self.sites
                    }
                )
                for owner in self.owners
            }
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for p in self.sets.parameters():
            bound = (6 / (3 * self.patch_size**2 + p.shape[1])) ** 0.5
            nn.init.uniform_(p, -bound, bound)

    def generate(self, tasks: Sequence[str]) -> dict[Site, Change]:
        changes = super().generate(tasks)
        owners = self.owners_of(tasks)
        for site in self.sites:
            tokens = torch.stack([self.sets[owner][site.key] for owner in owners])
            changes[site] = Prompts(tokens, self.norm)
        return changes
