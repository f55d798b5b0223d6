"""Image encoder and decoder of DreamerV3: 5x5 convolutions, pooling and upsampling by 2 at every stage.

    encoder   4 x [conv -> max-pool 2x2 -> norm -> SiLU] -> flatten (rows, columns, channels)
    decoder   h (block-linear) + z (MLP) -> map of 1/16 size -> norm -> SiLU
              3 x [upsample 2x -> conv -> norm -> SiLU] -> upsample 2x -> conv -> sigmoid

Norms are over the channels of each pixel. Upsampling and convolving is done in one step at the low resolution:
every output pixel sees at most 3x3 input pixels, under one of four kernels whose entries are sums of the 5x5
kernel's. The result is the same with 36 instead of 100 multiplications for each input pixel.

Source: Hafner et al. 2025; danijar/dreamerv3 (weights there are [k, k, in, out], here [out, in, k, k]).
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from oneiro.errors import OneiroError
from oneiro.nets import pooling
from oneiro.nets.layers import BlockLinear, Linear, RMSNorm, init_dreamer
from oneiro.runtime import memory_format

Layer = Callable[[Tensor], Tensor]
KERNEL = 5
STAGES = 4
_SMALLEST = 48
_sigmoid_backward = torch.ops.aten.sigmoid_backward.default
_TAPS = (
    ((1.0, 1, 0, 0, 0), (0, 0, 1, 1, 0), (0, 0, 0, 0, 1)),
    ((1, 0, 0, 0, 0), (0, 1, 1, 0, 0), (0, 0, 0, 1, 1)),
)
"""[parity, input pixel -1..1, kernel entry]: which entries of the kernel fall on which pixel before enlarging."""


def require_size(shape: tuple[int, ...], name: str, world: str) -> None:
    """OneiroError unless the image [C, H, W] halves four times and leaves a map of at least 3 x 3."""
    height, width = shape[1:]
    if height % 2**STAGES or width % 2**STAGES or min(height, width) < _SMALLEST:
        raise OneiroError(
            f"{world} takes images whose height and width are multiples of 16 from {_SMALLEST} on (such as 48, "
            f"64, 80, 96, 112, 128); {name!r} is {height} x {width}. Set the environment's image size to one of them"
        )


class Conv(nn.Module):
    """Weight and bias of a KERNEL x KERNEL convolution with stride 1 and zero padding that keeps the size."""

    taps: Tensor

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim, KERNEL, KERNEL))
        self.bias = nn.Parameter(torch.empty(out_dim))
        self.register_buffer("taps", torch.tensor(_TAPS), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight anew (`init_dreamer`); the bias is zero."""
        init_dreamer(self.weight, self.weight[0].numel())
        nn.init.zeros_(self.bias)

    def pooled(self, x: Tensor) -> Tensor:
        """Convolution and 2x2 maximum, [N, C, H, W] -> [N, H/2, W/2, O]."""
        if x.shape[1] <= pooling.FEW_COLOURS and len(x) >= pooling.MANY_PICTURES and x.device.type == "cpu":
            return pooling.patch_conv_max(pack(x), self.weight, self.bias)
        y = F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), padding=KERNEL // 2)
        return pooling.max_pool(y.permute(0, 2, 3, 1))

    def prepared(self, dtype: torch.dtype) -> Layer:
        """`pooled` of inputs in `dtype`, with kernels made once; without a graph."""
        if self.weight.shape[1] <= pooling.FEW_COLOURS and self.weight.device.type == "cpu":
            kernels = pooling.patch_kernels(self.weight.detach()).flatten(0, 1)
            kernels, bias = _laid_out(kernels, dtype), self.bias.detach().to(dtype).repeat(4)
            return lambda x: pooling.max_of_four(F.conv2d(_patches(x), kernels, bias, padding=1))
        kernel, bias = _laid_out(self.weight.detach(), dtype), self.bias.detach().to(dtype)
        return lambda x: pooling.max_pool(F.conv2d(x, kernel, bias, padding=KERNEL // 2).permute(0, 2, 3, 1))

    def upsampled(self, x: Tensor) -> Tensor:
        """Convolution of `x` [N, C, h, w] enlarged twofold (nearest), as [N, h, w, 2, 2, O]: pixel (2i+p, 2j+q) at
        [i, j, p, q].
        """
        kernel = torch.einsum("pak,qbl,oikl->pqoiab", self.taps, self.taps, self.weight)
        y = F.conv2d(x, kernel.flatten(0, 2).to(x.dtype), self.bias.to(x.dtype).repeat(4), padding=1)
        return rearrange(y, "n (p q o) h w -> n h w p q o", p=2, q=2)


class ImageEncoder(nn.Module):
    """Images [N, C, H, W] in -0.5..0.5 -> [N, out_dim], in the dtype of the images."""

    def __init__(self, shape: tuple[int, int, int], depth: int, mults: Sequence[int]) -> None:
        super().__init__()
        channels, height, width = shape
        widths = [channels, *(depth * m for m in mults)]
        self.convs = nn.ModuleList(Conv(a, b) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(RMSNorm(b) for b in widths[1:])
        self.out_dim = widths[-1] * (height >> STAGES) * (width >> STAGES)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The last map, flattened as rows, columns, channels."""
        return self._through(x, [conv.pooled for conv in self.convs])  # type: ignore[misc]

    def prepared(self, dtype: torch.dtype) -> Layer:
        """`forward` of images in `dtype`, with kernels made once; without a graph."""
        convs = [conv.prepared(dtype) for conv in self.convs]  # type: ignore[operator]
        return lambda x: self._through(x, convs)

    def _through(self, x: Tensor, convs: Sequence[Layer]) -> Tensor:
        x = x.contiguous(memory_format=memory_format())
        for conv, norm in zip(convs, self.norms, strict=True):
            x = norm.silu(conv(x)).permute(0, 3, 1, 2)  # type: ignore[operator]
        return x.permute(0, 2, 3, 1).flatten(1)  # rows, columns, channels


class Canvas(nn.Module, ABC):
    """A decoder of pictures from h [N, D] and flat z [N, Z]. Its output ends with the colours of all of them."""

    @abstractmethod
    def error(self, output: Tensor, picture: Tensor) -> Tensor:
        """[N]: squared error of some colours of the output to a picture [N, C, H, W], summed over pixels."""

    @abstractmethod
    def picture(self, output: Tensor) -> Tensor:
        """The output -> [N, C, H, W] in 0..1."""


class ImageDecoder(Canvas):
    """Deterministic h [N, D] and flat stochastic z [N, Z] -> logits of the image."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        deter_dim: int,
        stoch_dim: int,
        hidden_dim: int,
        depth: int,
        mults: Sequence[int],
        blocks: int,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        widths = [depth * m for m in mults]
        self.map = (height >> STAGES, width >> STAGES)
        self.blocks = blocks
        map_dim = self.map[0] * self.map[1] * widths[-1]
        self.from_deter = BlockLinear(deter_dim, map_dim, blocks)
        self.from_stoch = Linear(stoch_dim, hidden_dim)
        self.stoch_norm = RMSNorm(hidden_dim)
        self.to_map = Linear(hidden_dim, map_dim)
        self.map_norm = RMSNorm(widths[-1])
        stages = [widths[-1], *reversed(widths[:-1])]
        self.convs = nn.ModuleList(Conv(a, b) for a, b in itertools.pairwise(stages))
        self.norms = nn.ModuleList(RMSNorm(b) for b in stages[1:])
        self.image = Conv(stages[-1], channels)

    def forward(
        self, deter: Float[Tensor, "n d"], stoch: Float[Tensor, "n z"]
    ) -> Float[Tensor, "n h w 2 2 c"]:
        """Logits with every 2x2 patch together (see `unpack`), float32."""
        h, w = self.map
        a = rearrange(self.from_deter(deter), "n (g h w c) -> n h w (g c)", g=self.blocks, h=h, w=w)
        b = self.to_map(self.stoch_norm.silu(self.from_stoch(stoch)))
        x = self.map_norm.silu(a + rearrange(b, "n (h w c) -> n h w c", h=h, w=w))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = norm.silu(conv.upsampled(rearrange(x, "n h w c -> n c h w")))  # type: ignore[operator]
            x = rearrange(y, "n h w p q c -> n (h p) (w q) c")
        return self.image.upsampled(rearrange(x, "n h w c -> n c h w")).float()

    def error(self, output: Tensor, picture: Tensor) -> Tensor:
        """Of the sigmoid of the output."""
        error = _SquaredError.apply(output, picture)
        assert isinstance(error, Tensor)
        return error

    def picture(self, output: Tensor) -> Tensor:
        """The sigmoid of the output."""
        return unpack(torch.sigmoid(output))


def unpack(patches: Tensor) -> Tensor:
    """[N, h, w, 2, 2, C] -> image [N, C, 2h, 2w]."""
    return rearrange(patches, "n h w p q c -> n c (h p) (w q)")


def pack(image: Tensor) -> Tensor:
    """The inverse of `unpack`."""
    n, c, height, width = image.shape
    pixels = image.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    pairs = pixels.reshape(n, height * width // 2, 2 * c)  # moved whole: five times as fast as one by one
    order = torch.arange(height * width // 2, device=image.device).view(height // 2, 2, width // 2)
    patches = pairs.index_select(1, order.transpose(1, 2).flatten())
    return patches.view(n, height // 2, width // 2, 2, 2, c)


def _laid_out(kernel: Tensor, dtype: torch.dtype) -> Tensor:
    return kernel.to(dtype, memory_format=memory_format())


def _patches(image: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, 4 C, H/2, W/2]: the four pixels of every 2x2 patch, one after the other."""
    n, c, height, width = image.shape
    rows = image.permute(0, 2, 3, 1).reshape(n, height // 2, 2, width // 2, 2 * c)
    return rows.transpose(2, 3).reshape(n, height // 2, width // 2, 4 * c).permute(0, 3, 1, 2)


class _SquaredError(torch.autograd.Function):
    """Logits [N, h, w, 2, 2, C] and picture [N, C, H, W] -> [N]: sum of (sigmoid(logits) - picture)^2."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, picture: Tensor) -> Tensor:
        drawn = torch.sigmoid(logits)
        difference = pack(picture).to(drawn.dtype)
        if picture.dtype == torch.uint8:
            difference.mul_(1 / 255)
        difference = torch.sub(drawn, difference, out=difference)
        ctx.save_for_backward(drawn, difference)
        return torch.linalg.vector_norm(difference.flatten(1), dim=1).square_()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        drawn, difference = ctx.saved_tensors  # type: ignore[attr-defined]
        scale = (2 * grad).view(-1, *[1] * (drawn.ndim - 1))
        return _sigmoid_backward(difference * scale, drawn), None
