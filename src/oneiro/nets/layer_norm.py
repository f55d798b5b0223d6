"""Layers of DreamerV3's first generation (2023): layer norms, other initial weights.

Hidden layers have no bias, a LayerNorm (eps 1e-3) and SiLU behind them, and begin as a truncated normal of variance
1 / average of fan-in and fan-out. Outputs have a bias and begin uniform, with `scale` times that variance's bounds.

Source: Hafner et al. 2023, "Mastering diverse domains through world models" (arXiv 2301.04104v1) and its code.
"""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneiro.nets.layers import init_dreamer

EPS = 1e-3


def init_output(weight: Tensor, fan: int | float, scale: float = 1.0) -> None:
    """Uniform in +-scale * sqrt(3 / fan), in place; scale 0 gives zeros."""
    bound = scale * math.sqrt(3 / fan)
    nn.init.uniform_(weight, -bound, bound)


def norm_silu(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """SiLU of the norm over the last axis: the norm in float32, the result in the dtype of `x`."""
    return F.silu(norm(x.float()).to(x.dtype))


class Hidden(nn.Module):
    """Linear without bias -> LayerNorm -> SiLU, in the dtype of the input."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim))
        self.norm = nn.LayerNorm(out_dim, EPS)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight anew."""
        init_dreamer(self.weight, sum(self.weight.shape) / 2)

    def forward(self, x: Tensor) -> Tensor:
        """[.., in_dim] -> [.., out_dim]."""
        return norm_silu(F.linear(x, self.weight.to(x.dtype)), self.norm)


class Output(nn.Module):
    """Linear with a bias: [.., in_dim] -> [.., out_dim] in the dtype of the input."""

    def __init__(self, in_dim: int, out_dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim))
        self.bias = nn.Parameter(torch.empty(out_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight anew; the bias is zero."""
        init_output(self.weight, sum(self.weight.shape) / 2, self.scale)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """In the dtype of `x`."""
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class NormMLP(nn.Module):
    """`layers` Hidden layers of `units`, then, if `out` is given, an Output in float32. As `layers.MLP`."""

    def __init__(
        self, in_dim: int, units: int, layers: int, out: int | None = None, scale: float = 1.0
    ) -> None:
        super().__init__()
        widths = [in_dim] + [units] * layers
        self.hidden = nn.Sequential(*(Hidden(a, b) for a, b in itertools.pairwise(widths)))
        self.out = None if out is None else Output(widths[-1], out, scale)

    def forward(self, x: Tensor) -> Tensor:
        """[.., in_dim] -> [.., units], or [.., out]."""
        x = self.hidden(x)
        return x if self.out is None else self.out(x.float())
