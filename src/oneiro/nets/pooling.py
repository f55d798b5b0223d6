"""2x2 maxima of maps with few channels, and a convolution of colours that is made for them.

PyTorch's maximum over 2x2 pixels works along the channels, and with fewer than a vector of them it goes number by
number. Here whole rows are compared, then whole columns: what is compared lies one after the other in memory. For the
gradient only the two differences are kept.

A convolution of few colours uses a fraction of the processor. `PatchConv` sees 2x2 pixels as one of four times as many
colours, and gives the upper and the lower pixels of each patch as two maps, so that half of the maximum is done.
"""

import torch
from einops import rearrange
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

_threshold_backward = torch.ops.aten.threshold_backward.default
_WIDE = ((16, torch.complex128), (8, torch.float64), (4, torch.float32))
FEW_CHANNELS = 32
"""From so many on PyTorch's own maximum is as fast."""
FEW_COLOURS = 4
"""Up to so many input channels a convolution gains by patches,"""
MANY_PICTURES = 64
"""from so many pictures on; for fewer, making its kernels takes longer than it saves."""
MANY_NUMBERS = 2**16
"""Smaller maps take PyTorch's own maximum where there is a gradient,"""
SOME_NUMBERS = 2**13
"""and smaller than this where there is none."""


def larger(a: Tensor, b: Tensor) -> Tensor:
    """Elementwise maximum; where both are equal the gradient goes to `b`."""
    if not torch.is_grad_enabled():
        return torch.maximum(a, b)
    out = _Larger.apply(a, b)
    assert isinstance(out, Tensor)
    return out


def max_pool(x: Tensor) -> Tensor:
    """2x2 maximum of [N, H, W, C] -> [N, H/2, W/2, C]."""
    n, height, width, channels = x.shape
    differentiated = torch.is_grad_enabled()
    few = x.numel() < (MANY_NUMBERS if differentiated else SOME_NUMBERS)
    if few or x.device.type != "cpu" or (differentiated and channels >= FEW_CHANNELS):
        return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    upper, lower = x.reshape(n, height // 2, 2, width * channels).unbind(2)
    if not differentiated:
        left, right = torch.maximum(upper, lower).view(n, height // 2, width // 2, 2, channels).unbind(3)
        return torch.maximum(left, right)
    return max_of_columns(larger(upper, lower).view(n, height // 2, width, channels))


def max_of_columns(x: Tensor) -> Tensor:
    """[N, H, W, C] -> [N, H, W/2, C]: the maximum of every pair of columns."""
    n, height, width, channels = x.shape
    left, right = _Columns.apply(x.view(n, height, width // 2, 2, channels))  # type: ignore[misc]
    return larger(left, right)


def max_of_four(x: Tensor) -> Tensor:
    """[N, 4 O, H, W], four maps side by side -> [N, H, W, O]: their maximum; without a graph."""
    x = x.permute(0, 2, 3, 1)
    half = x.shape[-1] // 2
    pairs = torch.maximum(x[..., :half], x[..., half:])
    return torch.maximum(pairs[..., : half // 2], pairs[..., half // 2 :])


def patch_conv_max(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`max_pool` of a 5x5 convolution that keeps the size: patches [N, H, W, 2, 2, C] -> [N, H, W, O].

    Pixel p of a patch sees pixel r of the patch a - 1 further on under entry 2a + r - p of the kernel, along each axis.
    These are 36 instead of 25 multiplications for each pair, but of whole vectors.
    """
    kernels = patch_kernels(weight)
    colours = rearrange(x, "n h w r s c -> n (r s c) h w")
    both = bias.to(x.dtype).repeat(2)
    upper, lower = (F.conv2d(colours, kernel.to(x.dtype), both, padding=1) for kernel in kernels)
    pairs = larger(*(rearrange(y, "n (q o) h w -> n h (w q) o", q=2) for y in (upper, lower)))
    return max_of_columns(pairs)


def patch_kernels(weight: Tensor) -> Tensor:
    """[O, C, 5, 5] -> [2, 2 O, 4 C, 3, 3]: of the upper pixels of a patch and of the lower ones, left and right."""
    taps = weight.new_tensor(_TAPS)
    return torch.einsum("park,qbsl,ockl->pqorscab", taps, taps, weight).flatten(3, 5).flatten(1, 2)


_TAPS = [
    [[[float(2 * a + r - p == k) for k in range(5)] for r in range(2)] for a in range(3)] for p in range(2)
]
"""[p, a, r, k] along one axis: whether pixel p of a patch sees pixel r of patch a under entry k."""


class _Larger(torch.autograd.Function):
    """max(a, b); the gradient goes to the larger one."""

    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a - b)
        return torch.maximum(a, b)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor]:
        (difference,) = ctx.saved_tensors  # type: ignore[attr-defined]
        grad = grad.contiguous()
        of_a = _threshold_backward(grad, difference, 0.0)
        return of_a, grad - of_a


class _Columns(torch.autograd.Function):
    """[.., 2, C] -> two contiguous [.., C]. All C numbers are moved as one wherever their bytes allow it."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> tuple[Tensor, Tensor]:
        left, right = (part.contiguous().view(x.dtype) for part in _whole(x.contiguous()).unbind(-2))
        return left, right

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, left: Tensor, right: Tensor) -> Tensor:
        parts = [_whole(g.contiguous()) for g in (left, right)]
        return torch.stack(parts, -2).view(left.dtype)


def _whole(x: Tensor) -> Tensor:
    """The same memory in numbers as wide as the last axis can be divided into."""
    size = x.shape[-1] * x.element_size()
    for wide, dtype in _WIDE:
        if size % wide == 0 and x.element_size() < wide:
            return x.view(dtype)
    return x
