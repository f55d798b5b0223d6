"""Linear layers, norms and MLPs of DreamerV3.

Weights are float32. A layer computes in the dtype of its input, so a network runs in bfloat16 when it is given
bfloat16; norms and the output layers of MLPs are float32.

Source: Hafner et al. 2025, "Mastering diverse control tasks through world models"; danijar/dreamerv3.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

EPS = 1e-4
_silu_backward = torch.ops.aten.silu_backward.default
_TRUNCATED = 1.1368  # a normal cut at two standard deviations, times this, has standard deviation 1 again


def init_dreamer(weight: Tensor, fan_in: int | float, scale: float = 1.0) -> None:
    """Truncated normal of standard deviation `scale / sqrt(fan_in)`, in place; scale 0 gives zeros."""
    std = _TRUNCATED * scale / math.sqrt(fan_in)
    if std == 0:
        nn.init.zeros_(weight)
    else:
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


class Linear(nn.Module):
    """[.., in_dim] -> [.., out_dim]; `scale` shrinks the initial weight, the bias starts at zero."""

    def __init__(self, in_dim: int, out_dim: int, *, scale: float = 1.0, bias: bool = True) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim))
        self.bias = nn.Parameter(torch.empty(out_dim)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight anew (`init_dreamer`)."""
        init_dreamer(self.weight, self.weight.shape[1], self.scale)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """In the dtype of `x`."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class BlockLinear(nn.Module):
    """`blocks` linear layers side by side: slice g of the input gives slice g of the output.

    The fan-in of the initial weight is `in_dim`, not `in_dim / blocks` (as in the code).
    """

    def __init__(self, in_dim: int, out_dim: int, blocks: int) -> None:
        super().__init__()
        if in_dim % blocks or out_dim % blocks:
            raise ValueError(f"in_dim {in_dim} and out_dim {out_dim} must be divisible by blocks {blocks}")
        self.blocks = blocks
        self.weight = nn.Parameter(torch.empty(blocks, out_dim // blocks, in_dim // blocks))
        self.bias = nn.Parameter(torch.empty(out_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight anew (`init_dreamer`)."""
        init_dreamer(self.weight, self.blocks * self.weight.shape[2])
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[.., in_dim] -> [.., out_dim], in the dtype of `x`."""
        groups = x.reshape(-1, self.blocks, self.weight.shape[2]).transpose(0, 1)  # [G N I]
        bias = self.bias.to(x.dtype).view(self.blocks, 1, -1)
        out = torch.baddbmm(bias, groups, self.weight.to(x.dtype).transpose(1, 2))
        return out.transpose(0, 1).reshape(*x.shape[:-1], -1)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, float32 inside, returned in the dtype of `x`."""

    def __init__(self, dim: int, eps: float = EPS) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """[.., dim] -> [.., dim]."""
        wide = x.float()
        norm = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps) * self.weight
        return norm.to(x.dtype)

    def silu(self, x: Tensor) -> Tensor:
        """[.., dim] -> SiLU of the norm; where there is a gradient, in fewer passes over memory."""
        if not torch.is_grad_enabled():
            return _norm_silu(x, self.weight, self.eps)[0]
        out = _NormSiLU.apply(x, self.weight, self.eps)
        assert isinstance(out, Tensor)
        return out


def _norm_silu(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """silu(x r w) and r, in three passes over memory."""
    wide = x.float()
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    r = torch.full_like(length, eps).addcmul_(length, length, value=1 / x.shape[-1]).rsqrt_()
    return F.silu((wide * r).mul_(weight), inplace=True).to(x.dtype), r


class _NormSiLU(torch.autograd.Function):
    """silu(x r w), r = 1 / sqrt(mean(x^2) + eps). Only x and r are kept for the gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out, r = _norm_silu(x, weight, eps)
        ctx.save_for_backward(x, weight, r)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, r = ctx.saved_tensors  # type: ignore[attr-defined]
        n = x * r  # float32, as r
        # A gradient in another order than x would make every pass below several times as slow.
        g = _silu_backward(grad.contiguous().float(), n * weight)
        own = g * n
        rows = own.reshape(-1, x.shape[-1])
        grad_weight = rows.sum(0)
        mean = torch.mv(rows, weight).div_(x.shape[-1]).view_as(r)
        grad_x = g.mul_(weight).addcmul_(n, mean, value=-1).mul_(r)
        return grad_x.to(x.dtype), grad_weight, None


class MLP(nn.Module):
    """(Linear -> RMSNorm -> SiLU) x `layers`, then, if `out` is given, a plain Linear of that `scale`.

    Without `out` the result [.., units] has the dtype of the input. The output layer computes in float32: rounded
    logits of two-hot values cost three times the error that rounded hidden layers do.
    """

    def __init__(
        self, in_dim: int, units: int, layers: int, out: int | None = None, scale: float = 1.0
    ) -> None:
        super().__init__()
        widths = [in_dim] + [units] * layers
        self.linears = nn.ModuleList(Linear(a, b) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(RMSNorm(units) for _ in range(layers))
        self.out = None if out is None else Linear(widths[-1], out, scale=scale)

    def cast(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """`forward` for inputs of this dtype, without gradients: the hidden layers' weights are cast already."""
        weights = [[x.detach().to(dtype) for x in layer.parameters()] for layer in self.linears]
        out = self.out

        @torch.no_grad()
        def forward(x: Tensor) -> Tensor:
            for (weight, bias), norm in zip(weights, self.norms, strict=True):
                x = norm.silu(F.linear(x, weight, bias))  # type: ignore[operator]
            return x if out is None else out(x.float())

        return forward

    def forward(self, x: Tensor) -> Tensor:
        """[.., in_dim] -> [.., units], or [.., out]."""
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = norm.silu(linear(x))  # type: ignore[operator]
        return x if self.out is None else self.out(x.float())
