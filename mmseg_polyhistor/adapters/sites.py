"""Where adapters sit: the blocks of a hierarchical backbone, seen without the backbone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ['POSITIONS', 'BackboneLayout', 'Site', 'check_positions']

POSITIONS = ('attn', 'ffn')


class Site(NamedTuple):
    """One place for an adapter: after the attention or after the feed-forward net of a block."""

    stage: int
    block: int  # counted within the stage
    position: str  # 'attn' or 'ffn'


@dataclass(frozen=True)
class BackboneLayout:
    """Widths and depths of a backbone's stages; all that an adapter method knows of it.

    Args:
        widths: Channels of each stage, e.g. (96, 192, 384, 768) for Swin-T.
        depths: Blocks of each stage, e.g. (2, 2, 6, 2) for Swin-T.

    Raises:
        ValueError: if the two differ in length or hold a number below 1.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]

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
    if isinstance(positions, str):
        raise ValueError(
            f"positions must be a sequence such as ('ffn',) or ('attn', 'ffn'), got the string {positions!r}"
        )
    unknown = [p for p in positions if p not in POSITIONS]
    if unknown or not positions or len(set(positions)) != len(tuple(positions)):
        raise ValueError(f'positions must be a non-empty subset of {POSITIONS}, got {tuple(positions)}')
    return tuple(p for p in POSITIONS if p in positions)
