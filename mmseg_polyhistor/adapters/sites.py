"""Where a method reaches into a hierarchical backbone, seen without the backbone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .checks import check_names

__all__ = ['POSITIONS', 'BackboneLayout', 'LinearSite', 'ParameterSite', 'Site', 'check_positions']

POSITIONS = ('attn', 'ffn')


class Site(NamedTuple):
    """One place in the backbone that a method can change.

    `position` is 'attn' or 'ffn' for an adapter after the attention or the feed-forward net of a block, 'prompts' for
    tokens in a block's attention, and else the stock name, within the block, of a linear map or a parameter, such as
    'attn.w_msa.qkv' or 'norm1.bias'. With `block` None it is outside the blocks of its stage: 'patch_embed.*' stands in
    front of them, 'downsample.*' and 'norm.*' behind them.
    """

    stage: int
    block: int | None  # counted within the stage
    position: str

    @property
    def key(self) -> str:
        """A name without dots, for module and parameter dicts."""
        at = '' if self.block is None else f'_block{self.block}'
        return f'stage{self.stage}{at}_{self.position.replace(".", "_")}'


class LinearSite(NamedTuple):
    """A linear map of the backbone, by what it does: 'qkv' (several maps may share it), 'proj', 'fc1', 'fc2', or
    'reduction' (patch merging of Swin)."""

    site: Site
    role: str
    in_features: int
    out_features: int


class ParameterSite(NamedTuple):
    """A parameter of the backbone, with the groups that it belongs to, such as ('norm', 'norm_bias')."""

    site: Site
    shape: tuple[int, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True)
class BackboneLayout:
    """Widths and depths of a backbone's stages, its linear maps and parameters; all that a method knows of it.

    Args:
        widths: Channels of each stage, e.g. (96, 192, 384, 768) for Swin-T.
        depths: Blocks of each stage, e.g. (2, 2, 6, 2) for Swin-T.
        linears: The linear maps that low-rank methods can change. Defaults to ().
        parameters: The parameters that can be tuned beside the frozen ones. Defaults to ().

    Raises:
        ValueError: if widths and depths differ in length or hold a number below 1.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    linears: tuple[LinearSite, ...] = field(default=(), repr=False)
    parameters: tuple[ParameterSite, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.depths) or not self.widths:
            raise ValueError(f'widths {self.widths} and depths {self.depths} must name the same stages')
        if min(*self.widths, *self.depths) < 1:
            raise ValueError(f'widths {self.widths} and depths {self.depths} must be positive')

    def sites(self, positions: Sequence[str]) -> Iterator[Site]:
        """All sites in the order in which a forward pass meets them."""
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                for position in POSITIONS:
                    if position in positions:
                        yield Site(stage, block, position)

    def select_linears(self, roles: Sequence[str], argument: str = 'targets') -> tuple[LinearSite, ...]:
        """The linear maps of the given roles, in the backbone's order; `argument` is what messages call the roles.

        Raises:
            ValueError: if no role is given, or the backbone has no linear map of one of them.
        """
        known = {linear.role for linear in self.linears}
        check_names(argument, roles, known, 'linear maps of this backbone')
        return tuple(linear for linear in self.linears if linear.role in roles)

    def select_parameters(self, groups: Sequence[str]) -> tuple[ParameterSite, ...]:
        """The parameters that belong to any of the given groups, in the backbone's order; () for no group.

        Raises:
            ValueError: if the backbone has no parameter of one of the groups.
        """
        if groups != ():
            known = {group for parameter in self.parameters for group in parameter.groups}
            check_names('tuned', groups, known, 'groups of parameters of this backbone')
        return tuple(p for p in self.parameters if not set(p.groups).isdisjoint(groups))

    def scales(self) -> tuple[int, ...]:
        """Each stage's width as a multiple of the first stage's (paper, section 4.2: 1, 2, 4, 8 for Swin).

        Raises:
            ValueError: if a width is no multiple of the first one.
        """
        base = self.widths[0]
        odd = [w for w in self.widths if w % base]
        if odd:
            raise ValueError(
                f'scaling kernels need stage widths that are multiples of the first one, {base}; got {odd} in {self.widths}'
            )
        return tuple(w // base for w in self.widths)


def check_positions(positions: Sequence[str]) -> tuple[str, ...]:
    """Validate positions and return them in the order of a forward pass.

    Raises:
        ValueError: if none is given, one is unknown, or a plain string is passed.
    """
    check_names('positions', positions, POSITIONS, 'a non-empty subset of these is allowed')
    return tuple(p for p in POSITIONS if p in positions)
