"""Linear maps and LayerNorm for several groups in one product: the hyper-networks of all blocks of one shape at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .functional import LN_EPS

__all__ = ['CodeNet', 'GroupedLinear']


class GroupedLinear(nn.Module):
    """G independent linear maps, applied by one batched product.

    Args:
        groups: G.
        in_features: Input width.
        out_features: Output width.

    Shape:
        (G, M, in_features) -> (G, M, out_features).
    """

    def __init__(self, groups: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(groups, out_features))

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.shape[0] == 1:
            return F.linear(x, self.weight[0], self.bias[0])
        return torch.baddbmm(self.bias[:, None], x, self.weight.transpose(1, 2))

    def reset_parameters(self, std: float | None = None, bias: float = 0.0) -> None:
        """N(0, std^2) weights and a constant bias; without `std`, torch's default for a Linear (uniform in both)."""
        if std is not None:
            nn.init.normal_(self.weight, std=std)
            nn.init.constant_(self.bias, bias)
            return
        bound = self.weight.shape[2] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        groups, out_features, in_features = self.weight.shape
        return f'groups={groups}, in_features={in_features}, out_features={out_features}'


class CodeNet(nn.Module):
    """The body of a hyper-network, I = LN(W2 relu(W1 v + b1) + b2), for G independent groups.

    Polyhistor paper, sections 4.1 and 4.3; HyperFormer (Mahabadi et al., ACL 2021), equation 3.

    Args:
        groups: G, the number of independent hyper-networks.
        in_features: Width of the concatenated embeddings.
        hidden: Hidden width h.
        out_features: Code width k.

    Shape:
        (G, M, in_features) -> (G, M, out_features).
    """

    def __init__(self, groups: int, in_features: int, hidden: int, out_features: int) -> None:
        super().__init__()
        self.fc1 = GroupedLinear(groups, in_features, hidden)
        self.fc2 = GroupedLinear(groups, hidden, out_features)
        self.norm_weight = nn.Parameter(torch.empty(groups, out_features))
        self.norm_bias = nn.Parameter(torch.empty(groups, out_features))

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc2(F.relu(self.fc1(x)))
        return F.layer_norm(x, x.shape[-1:], eps=LN_EPS) * self.norm_weight[:, None] + self.norm_bias[:, None]

    def reset_parameters(self) -> None:
        self.fc1.reset_parameters()
        self.fc2.reset_parameters()
        nn.init.ones_(self.norm_weight)
        nn.init.zeros_(self.norm_bias)
