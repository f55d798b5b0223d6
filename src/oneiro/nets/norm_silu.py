"""SiLU of a group norm whose scale and shift differ from row to row: one function, its gradient written out.

    y = silu(weight * norm(x) + bias)        weight, bias [B, C]; norm over the groups of each row

Every norm but those of attention is followed by SiLU in DIAMOND's networks. On a CPU the rows of large maps are taken
one after the other, so that a row stays in the cache between norm and SiLU, and with one row the scale and shift are
the norm's own. Nothing but x is kept for the gradient; the norm is made again. Several rows of small maps take the
plain form: there the calls would cost more than the memory.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5
LARGE = 32 * 32 * 32
"""Numbers in a row of x from which rows are taken one by one."""

_norm, _norm_backward = torch.ops.aten.native_group_norm, torch.ops.aten.native_group_norm_backward


def norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor) -> Tensor:
    """x [B, C, H, W], weight and bias [B, C] float32 -> [B, C, H, W] in the dtype of x."""
    if x.device.type != "cpu" or (len(x) > 1 and x[0].numel() < LARGE):
        return plain_norm_silu(x, groups, weight, bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or bias.requires_grad):
        return _NormSilu.apply(x, groups, weight, bias)  # type: ignore[return-value]
    return _by_row(x, groups, weight, bias)


def plain_norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor) -> Tensor:
    """The same as the formula says it."""
    y = F.group_norm(x, groups, eps=EPS)
    return F.silu(torch.addcmul(bias[:, :, None, None], y, weight[:, :, None, None])).to(x.dtype)


def _by_row(x: Tensor, groups: int, weight: Tensor, bias: Tensor) -> Tensor:
    _, c, h, w = x.shape
    y = torch.empty_like(x)
    for x1, y1, weight1, bias1 in zip(x.split(1), y.split(1), weight, bias, strict=True):
        z, _, _ = _norm(x1, weight1, bias1, 1, c, h * w, groups, EPS)
        torch.ops.aten.silu.out(z, out=y1)
    return y


class _NormSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.groups = groups
        return _by_row(x, groups, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        x, weight, bias = ctx.saved_tensors
        _, c, h, w = x.shape
        shape = (1, c, h * w, ctx.groups)
        dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
        for row, (x1, grad1) in enumerate(zip(x.split(1), grad.split(1), strict=True)):
            z, mean, rstd = _norm(x1, weight[row], bias[row], *shape, EPS)
            dz = torch.ops.aten.silu_backward(grad1, z)
            found = _norm_backward(dz, x1, mean, rstd, weight[row], *shape, [True, True, True])
            dx[row : row + 1], dweight[row], dbias[row] = found
        return dx, None, dweight, dbias
