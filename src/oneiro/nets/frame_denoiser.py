"""The network F of DIAMOND: past frames and actions in, an estimate for the noisy next frame out.

    actions, noise level --condition--> one modulation per norm of the U-Net      (nothing of the picture)
    past frames ----------look--------> their share of the first convolution      (nothing of the noise)
    noisy frame, both ----forward-----> F

The three calls are apart because a sampler needs the first for all its noise levels at once, the second once a frame,
and only the third for every step. Paper: arXiv 2405.12399; sizes and order of the weights as in the released code.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneiro.nets.adagn_unet import AdaGNUNet, conv3x3, group_norm, silu_of
from oneiro.runtime import memory_format
from oneiro.spaces import ActionCodec


def computing(x: Tensor, dtype: torch.dtype) -> AbstractContextManager:
    """Convolutions and matrix products of this block in `dtype`; weights stay float32."""
    if x.is_meta:  # shapes alone are counted, and autocast knows no such device
        return nullcontext()
    return torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32)


class FourierFeatures(nn.Module):
    """[B] -> [B, dim]: cos and sin of 2 pi w x, with w ~ N(0, 1) drawn once and kept."""

    weight: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"Fourier features come in pairs, so dim must be even, got {dim}")
        self.register_buffer("weight", torch.randn(1, dim // 2))

    def forward(self, x: Tensor) -> Tensor:
        """The cosines, then the sines."""
        angle = 2 * math.pi * x[:, None] * self.weight
        return torch.cat([angle.cos(), angle.sin()], -1)


class ActionEmbedding(nn.Module):
    """[.., A] -> [.., dim]: the sum of the rows of active entries.

    Discrete: one row per action; no action (zeros, before an episode) counts as action 0 as in the code. Many bits or
    a Box: a weighted sum, and no action is zero. Initialised like `nn.Embedding`, and not decayed by the optimizer.
    """

    def __init__(self, codec: ActionCodec, dim: int) -> None:
        super().__init__()
        self.codec = codec
        self.weight = nn.Parameter(torch.randn(codec.dim, dim))
        self.weight.is_embedding = True  # type: ignore[attr-defined]

    def forward(self, action: Tensor) -> Tensor:
        """Float actions in the codec's form."""
        if self.codec.is_discrete:
            starts = [sum(self.codec.groups[:i]) for i in range(len(self.codec.groups))]
            none = torch.zeros(self.codec.dim, device=action.device)
            none[starts] = 1.0
            action = action + (action == 0).all(-1, keepdim=True) * none
        return action.to(self.weight.dtype) @ self.weight


class FrameDenoiser(nn.Module):
    """F. `context_channels` past channels, `actions` embedded actions (0 = none)."""

    def __init__(
        self,
        *,
        image_channels: int,
        context_channels: int,
        codec: ActionCodec | None,
        num_actions: int,
        cond_dim: int,
        channels: Sequence[int],
        blocks: Sequence[int],
        attends: Sequence[bool],
        tells_context_noise: bool = False,
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.context_channels, self.compute_dtype = context_channels, compute_dtype
        self.noise = FourierFeatures(cond_dim)
        self.context_noise = FourierFeatures(cond_dim) if tells_context_noise else None
        self.action = None
        if codec is not None:
            if cond_dim % num_actions:
                raise ValueError(
                    f"cond_dim {cond_dim} must be divisible by the {num_actions} embedded actions"
                )
            self.action = ActionEmbedding(codec, cond_dim // num_actions)
        self.cond = nn.Sequential(nn.Linear(cond_dim, cond_dim), nn.SiLU(), nn.Linear(cond_dim, cond_dim))
        self.conv_in = conv3x3(context_channels + image_channels, channels[0])
        self.unet = AdaGNUNet(cond_dim, channels, blocks, attends)
        self.norm_out = group_norm(channels[0])
        self.conv_out = conv3x3(channels[0], image_channels)
        nn.init.zeros_(self.conv_out.weight)

    def condition(
        self, told: Tensor, action: Tensor | None, context_told: Tensor | None = None
    ) -> list[Tensor]:
        """Noise level as the network is told it [B], actions [B, n, A] oldest first -> the modulation of B rows.

        `context_told` [B] is the noise level of the past frames; None stands for none (0 is told, as in the code).
        """
        cond = self.noise(told)
        if self.context_noise is not None:
            cond = cond + self.context_noise(torch.zeros_like(told) if context_told is None else context_told)
        if self.action is not None:
            assert action is not None, "this denoiser is conditioned on actions"
            cond = cond + self.action(action).flatten(1)
        return self.unet.modulate(self.cond(cond))

    def look(self, context: Tensor) -> Tensor:
        """Past frames [B, context_channels, H, W], scaled -> their share of the first convolution."""
        with computing(context, self.compute_dtype):
            weight = self.conv_in.weight[:, : self.context_channels]
            return F.conv2d(_laid_out(context), weight, self.conv_in.bias, padding=1)

    def forward(self, x: Tensor, seen: Tensor, modulation: Sequence[Tensor]) -> Tensor:
        """Scaled noisy frame [B, C, H, W] -> F [B, C, H, W], float32."""
        with computing(x, self.compute_dtype):
            weight = self.conv_in.weight[:, self.context_channels :]
            y = self.unet(seen + F.conv2d(_laid_out(x), weight, padding=1), modulation)
            return self.conv_out(silu_of(self.norm_out, y)).float()


def _laid_out(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=memory_format())
