"""Image encoder and decoder of DreamerV3's first generation (2023): 4x4 convolutions of stride 2.

    encoder   4 x [conv -> layer norm over channels -> SiLU] -> flatten (rows, columns, channels)
    decoder   linear -> map of 1/16 size -> 3 x [transposed conv -> norm -> SiLU] -> transposed conv, + 0.5

Source: Hafner et al. 2023, "Mastering diverse domains through world models" (arXiv 2301.04104v1) and its code.
"""

import itertools
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from oneiro.nets.cnn import STAGES, Canvas, Layer
from oneiro.nets.layer_norm import EPS, Output, init_output, norm_silu
from oneiro.nets.layers import init_dreamer
from oneiro.runtime import memory_format
from oneiro.spaces import to_float

KERNEL = 4
MULTS = (1, 2, 4, 8)


class StridedConv(nn.Module):
    """Halves the size (or doubles it, `up`), without bias; LayerNorm over channels, SiLU."""

    def __init__(self, in_dim: int, out_dim: int, *, up: bool = False) -> None:
        super().__init__()
        self.convolve = F.conv_transpose2d if up else F.conv2d
        shape = (in_dim, out_dim) if up else (out_dim, in_dim)
        self.weight = nn.Parameter(torch.empty(*shape, KERNEL, KERNEL))
        self.norm = nn.LayerNorm(out_dim, EPS)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight anew."""
        init_dreamer(self.weight, _fan(self.weight))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o y x"]:
        """In the dtype of `x`."""
        return self._with(x, self.weight.to(x.dtype))

    def prepared(self, dtype: torch.dtype) -> Layer:
        """`forward` of inputs in `dtype`, its kernel cast once; without a graph."""
        kernel = self.weight.detach().to(dtype, memory_format=memory_format())
        return lambda x: self._with(x, kernel)

    def _with(self, x: Tensor, kernel: Tensor) -> Tensor:
        y = self.convolve(x, kernel, stride=2, padding=1)
        return norm_silu(y.permute(0, 2, 3, 1), self.norm).permute(0, 3, 1, 2)


class StridedEncoder(nn.Module):
    """Images [N, C, H, W] in -0.5..0.5 -> [N, out_dim], in the dtype of the images."""

    def __init__(self, shape: tuple[int, int, int], depth: int) -> None:
        super().__init__()
        channels, height, width = shape
        widths = [channels, *(depth * m for m in MULTS)]
        self.convs = nn.Sequential(*(StridedConv(a, b) for a, b in itertools.pairwise(widths)))
        self.out_dim = widths[-1] * (height >> STAGES) * (width >> STAGES)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The last map, flattened as rows, columns, channels."""
        return self._through(x, list(self.convs))

    def prepared(self, dtype: torch.dtype) -> Layer:
        """`forward` of images in `dtype`, with kernels cast once; without a graph."""
        convs = [conv.prepared(dtype) for conv in self.convs]  # type: ignore[operator]
        return lambda x: self._through(x, convs)

    def _through(self, x: Tensor, convs: Sequence[Layer]) -> Tensor:
        x = x.contiguous(memory_format=memory_format())
        for conv in convs:
            x = conv(x)
        return x.permute(0, 2, 3, 1).flatten(1)  # rows, columns, channels


class StridedDecoder(Canvas):
    """h [N, D] and flat z [N, Z] -> colours [N, H, W, C], in about 0..1 but not bounded."""

    def __init__(self, shape: tuple[int, int, int], in_dim: int, depth: int) -> None:
        super().__init__()
        channels, height, width = shape
        widths = [depth * m for m in reversed(MULTS)]
        self.map = (height >> STAGES, width >> STAGES)
        self.to_map = Output(in_dim, widths[0] * self.map[0] * self.map[1])
        self.convs = nn.Sequential(*(StridedConv(a, b, up=True) for a, b in itertools.pairwise(widths)))
        self.weight = nn.Parameter(torch.empty(widths[-1], channels, KERNEL, KERNEL))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the last convolution anew; the other layers have their own rule."""
        init_output(self.weight, _fan(self.weight))
        nn.init.zeros_(self.bias)

    def forward(self, deter: Float[Tensor, "n d"], stoch: Float[Tensor, "n z"]) -> Float[Tensor, "n h w c"]:
        """Float32."""
        h, w = self.map
        x = self.to_map(torch.cat([stoch, deter], -1))
        x = self.convs(rearrange(x, "n (h w c) -> n c h w", h=h, w=w))
        y = F.conv_transpose2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), stride=2, padding=1)
        return rearrange(y, "n c h w -> n h w c").float() + 0.5

    def error(self, output: Tensor, picture: Tensor) -> Tensor:
        """Of the output as it is, not cut to 0..1."""
        truth = to_float(rearrange(picture, "n c h w -> n h w c"))
        return (output - truth).square().flatten(1).sum(-1)

    def picture(self, output: Tensor) -> Tensor:
        """The output cut to 0..1."""
        return rearrange(output, "n h w c -> n c h w").clamp(0, 1)


def _fan(weight: Tensor) -> float:
    """Average of fan-in and fan-out of a convolution."""
    return (weight.shape[0] + weight.shape[1]) / 2 * KERNEL**2
