"""DIAMOND's U-Net: residual blocks whose group norms are scaled and shifted by a conditioning vector.

Paper: arXiv 2405.12399, appendix; sizes and initialisation from the released code ("code").

    cond --modulate--> one (scale, shift) per norm, in order of use
    x --down 0-- .. --down S-1-- mid --up S-1-- .. --up 0--> y
        every down stage of n blocks leaves n + 1 tensors to its up stage

The modulation does not depend on x. It is made in one call of its own, so that a sampler can make it for all its
noise levels at once. Modules are registered in the order of the code's, so that its weights can be read by position.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneiro.nets.norm_silu import norm_silu

GROUP_SIZE = 32
EPS = 1e-5
HEAD_DIM = 8
PLAIN_PIXELS = 256


def num_groups(channels: int) -> int:
    """Groups of a norm over `channels`: of 32 each, at least one."""
    return max(1, channels // GROUP_SIZE)


def group_norm(channels: int) -> nn.GroupNorm:
    """With learned scale and shift."""
    return nn.GroupNorm(num_groups(channels), channels, eps=EPS)


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Padding 1: the size stays, or is halved by stride 2."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


def silu_of(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """silu(norm(x)), in the dtype of x."""
    weight, bias = (p.expand(len(x), -1) for p in (norm.weight, norm.bias))
    return norm_silu(x, norm.num_groups, weight, bias)


class AdaGroupNorm(nn.Module):
    """norm(x) * (1 + scale) + shift, where (scale, shift) = Linear(cond). With SiLU: `silu_of`."""

    def __init__(self, channels: int, cond_dim: int) -> None:
        super().__init__()
        self.groups = num_groups(channels)
        self.linear = nn.Linear(cond_dim, 2 * channels)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """x [B, C, H, W], modulation [B, 2C] = `linear(cond)`."""
        scale, shift = modulation[:, :, None, None].chunk(2, 1)
        return torch.addcmul(shift, F.group_norm(x, self.groups, eps=EPS), 1 + scale)

    def silu_of(self, x: Tensor, modulation: Tensor) -> Tensor:
        """silu(self(x, modulation)), in the dtype of x."""
        scale, shift = modulation.chunk(2, 1)
        return norm_silu(x, self.groups, 1 + scale, shift)


class SelfAttention(nn.Module):
    """Attention between all pixels, heads of 8 channels. Its output weights begin at zero.

    Code: the result is added to norm(x), not to x as in a pre-norm residual. The released weights depend on it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // HEAD_DIM)
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        b, c, h, w = x.shape
        x = self.norm(x)
        qkv = self.qkv(x).reshape(b, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each [B heads HW D]
        y = _attention(q, k, v)
        return x + self.out(y.transpose(-1, -2).reshape(b, c, h, w))


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[B, heads, HW, D] each. In bfloat16 on a CPU the plain form is faster for few pixels, its gradient too."""
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or q.shape[-2] > PLAIN_PIXELS:
        return F.scaled_dot_product_attention(q, k, v)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), then attention if asked for. The second conv begins at zero."""

    def __init__(self, inputs: int, outputs: int, cond_dim: int, attends: bool) -> None:
        super().__init__()
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.norm1 = AdaGroupNorm(inputs, cond_dim)
        self.conv1 = conv3x3(inputs, outputs)
        self.norm2 = AdaGroupNorm(outputs, cond_dim)
        self.conv2 = conv3x3(outputs, outputs)
        self.attention = SelfAttention(outputs) if attends else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, modulation: Iterator[Tensor]) -> Tensor:
        """Takes the next two of `modulation`."""
        y = self.conv1(self.norm1.silu_of(x, next(modulation)))
        y = self.conv2(self.norm2.silu_of(y, next(modulation)))
        return self.attention(self.skip(x) + y)


def res_blocks(inputs: Sequence[int], outputs: Sequence[int], cond_dim: int, attends: bool) -> nn.ModuleList:
    """One block per pair of widths."""
    return nn.ModuleList(ResBlock(a, b, cond_dim, attends) for a, b in zip(inputs, outputs, strict=True))


class Downsample(nn.Module):
    """Halves the size; orthogonal weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels, stride=2)
        nn.init.orthogonal_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H/2, W/2]."""
        return self.conv(x)


class Upsample(nn.Module):
    """Doubles the size: nearest pixels, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, 2H, 2W]."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def ada_norms(*blocks: nn.Module) -> list[AdaGroupNorm]:
    """The conditioned norms of `blocks`, in order of use."""
    return [m for block in blocks for m in block.modules() if isinstance(m, AdaGroupNorm)]


class AdaGNUNet(nn.Module):
    """[B, channels[0], H, W] -> the same; sizes that do not halve evenly are padded with zeros and cropped."""

    def __init__(
        self, cond_dim: int, channels: Sequence[int], blocks: Sequence[int], attends: Sequence[bool]
    ) -> None:
        super().__init__()
        assert len(channels) == len(blocks) == len(attends), "one number per stage"
        down, up = [], []
        for stage, (width, n) in enumerate(zip(channels, blocks, strict=True)):
            before = channels[max(0, stage - 1)]
            down.append(res_blocks([before] + [width] * (n - 1), [width] * n, cond_dim, attends[stage]))
            inputs, outputs = [2 * width] * n + [width + before], [width] * n + [before]
            up.append(res_blocks(inputs, outputs, cond_dim, attends[stage]))
        self.down = nn.ModuleList(down)
        self.up = nn.ModuleList(reversed(up))
        self.mid = res_blocks([channels[-1]] * 2, [channels[-1]] * 2, cond_dim, True)
        self.shrink = nn.ModuleList([nn.Identity(), *(Downsample(c) for c in channels[:-1])])
        self.grow = nn.ModuleList([nn.Identity(), *(Upsample(c) for c in reversed(channels[:-1]))])

    def modulate(self, cond: Tensor) -> list[Tensor]:
        """cond [B, cond_dim] -> [B, 2C] for each norm, in order of use."""
        return [norm.linear(cond) for norm in ada_norms(*self.down, self.mid, *self.up)]

    def forward(self, x: Tensor, modulation: Sequence[Tensor]) -> Tensor:
        """x [B, C, H, W] under the modulation of its rows."""
        height, width = x.shape[-2:]
        unit = 2 ** (len(self.down) - 1)
        x = F.pad(x, (0, -width % unit, 0, -height % unit)) if width % unit or height % unit else x
        parts = iter(modulation)
        left: list[Tensor] = []
        for shrink, stage in zip(self.shrink, self.down, strict=True):
            x = shrink(x)
            left.append(x)
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, parts)
                left.append(x)
        for block in self.mid:
            x = block(x, parts)
        for grow, stage in zip(self.grow, self.up, strict=True):
            x = grow(x)
            for block in stage:  # type: ignore[attr-defined]
                x = block(torch.cat([x, left.pop()], 1), parts)
        return x[..., :height, :width]
