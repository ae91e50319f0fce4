"""Methods that tune parameters of the frozen network and add nothing to it."""

from __future__ import annotations

from collections.abc import Sequence

from .base import AdapterMethod
from .checks import check_names, with_fixed

__all__ = ['BitFit', 'RelativeBias']


class BitFit(AdapterMethod):
    """BitFit: every bias of the encoder (Ben Zaken et al., "BitFit", ACL 2022; the paper's row of that name).

    The paper counts every parameter with `bias` in its name: the biases of linear maps, convolutions and norms, and
    the tables of relative positions. A fresh network equals the frozen one.

    Args:
        tuned: Groups of parameters. Defaults to ('bias', 'norm_bias', 'relative_position_bias').
        **kwargs: See `AdapterMethod`.
    """

    def __init__(
        self, *, tuned: Sequence[str] = ('bias', 'norm_bias', 'relative_position_bias'), **kwargs
    ) -> None:
        super().__init__(tuned=check_names('tuned', tuned), **kwargs)


class RelativeBias(AdapterMethod):
    """The tables of relative positions alone (the paper's row "relative bias"); a fresh network equals the frozen one.

    For the arguments see `AdapterMethod`; `tuned` is set, and other groups are for `BitFit`.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**with_fixed(type(self).__name__, kwargs, tuned=('relative_position_bias',)))
