"""The denoiser of DIAMOND: its objective, and how a next frame is sampled. See `worlds/diamond.py`.

loss     frames n .. T-1 of a segment are denoised one after the other; each is then replaced by what the network
         made of it (quantised, no gradient), so that later ones learn to go on from its own frames ("self-feeding")
sample   noise -> next frame, given n frames and n actions
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from oneiro.nets.ddpm import DDPM
from oneiro.nets.edm import EDMSampler, NoiseLaw, Rounding, from_levels, precondition, quantise
from oneiro.nets.frame_denoiser import FrameDenoiser
from oneiro.runtime import compute_dtype
from oneiro.spaces import ActionCodec
from oneiro.types import Knob


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """Sizes, objective and sampler; the defaults are DIAMOND's on Atari."""

    context: int = 4  # n, past frames and actions it is conditioned on
    channels: tuple[int, ...] = (64, 64, 64, 64)  # width of each stage of the U-Net
    blocks: int = 2  # residual blocks of each stage
    attention: tuple[int, ...] = ()  # stages whose blocks attend, from 0 (the middle always does)
    cond_dim: int = 256  # width of the conditioning vector
    objective: Literal["edm", "ddpm"] = "edm"  # what F predicts; ddpm is the paper's comparison (section 5.1)
    sigma_data: float = 0.5  # standard deviation of pixels in -1..1
    offset_noise: float = (
        0.3  # noise shared by the pixels of a channel; 0 = the paper's objective, which has none
    )
    law: NoiseLaw = field(default_factory=NoiseLaw)  # of the noise levels in training
    sampler: EDMSampler = field(default_factory=EDMSampler)  # how frames are made (objective edm)
    ddpm: DDPM = field(default_factory=DDPM)  # noise schedule and sampler of the objective ddpm
    rounding: Rounding = "truncate"  # to the 256 levels of a frame: truncate (code) or round
    tells_context_noise: bool = False  # a second embedding, of the noise on the past frames (Counter-Strike)
    noises_context: bool = False  # past frames get noise of their own in training (Counter-Strike)
    context_sigma: float = 0.0  # and this much in sampling, added anew at every step (Counter-Strike: 0.005)

    def __post_init__(self) -> None:
        require_stages(self.channels, self.blocks, self.attention)
        if self.context < 1:
            raise ValueError(f"context must be at least 1 frame, got {self.context}")
        if self.sigma_data <= 0 or self.offset_noise < 0 or self.context_sigma < 0:
            raise ValueError("sigma_data must be positive, offset_noise and context_sigma not negative")
        if (self.noises_context or self.context_sigma) and not self.tells_context_noise:
            raise ValueError("noise on the past frames needs tells_context_noise, or F would not know of it")
        if self.context_sigma and self.objective == "ddpm":
            raise ValueError(
                f"context_sigma {self.context_sigma} has no effect with the objective ddpm; leave it at 0"
            )

    @property
    def steps(self) -> int:
        """Denoising steps of a frame."""
        return self.sampler.steps if self.objective == "edm" else self.ddpm.steps

    def steps_knob(self, name: str = "steps", about: str = "denoising steps of a frame") -> Knob:
        """For `WorldModel.knobs`."""
        high = 20 if self.objective == "edm" else min(50, self.ddpm.levels)
        return Knob(
            name=name, about=about, value=self.steps, low=1, high=max(high, self.steps), is_whole=True
        )


def require_stages(channels: tuple[int, ...], blocks: int, attention: tuple[int, ...]) -> None:
    """ValueError unless there are stages, they have blocks, and those that attend exist."""
    if not channels or min(*channels, blocks) < 1:
        raise ValueError(f"channels {channels} and blocks {blocks} must be at least 1")
    if attention and not (min(attention) >= 0 and max(attention) < len(channels)):
        raise ValueError(f"attention {attention} names a stage that is none of 0 to {len(channels) - 1}")


@dataclass
class Draw:
    """The random numbers of one denoised frame."""

    level: Tensor
    """[B]: standard normal, which the law turns into sigma (edm), or uniform in 0..1 (ddpm)."""
    offset: Tensor
    """[B, C, 1, 1] standard normal."""
    noise: Tensor
    """[B, C, H, W] standard normal."""


@dataclass
class Noised:
    """A noisy frame as the network is given it, and what it should answer."""

    x: Tensor
    told: Tensor
    """[B], the noise level as the network is told it."""
    target: Tensor
    clean: Callable[[Tensor], Tensor]
    """F -> the frame it stands for."""


class Denoiser(nn.Module):
    """F and its objective. With a `codec` it is conditioned on actions; `guide_channels` is for upsamplers."""

    def __init__(
        self,
        config: DenoiserConfig,
        image_channels: int,
        codec: ActionCodec | None,
        guide_channels: int = 0,
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    ) -> None:
        super().__init__()
        self.config, self.sampler = config, config.sampler
        self.net = FrameDenoiser(
            image_channels=image_channels,
            context_channels=config.context * image_channels + guide_channels,
            codec=codec,
            num_actions=config.context,
            cond_dim=config.cond_dim,
            channels=config.channels,
            blocks=[config.blocks] * len(config.channels),
            attends=[stage in config.attention for stage in range(len(config.channels))],
            tells_context_noise=config.tells_context_noise,
            compute_dtype=compute_dtype(dtype),
        )

    def draw(self, frame: Tensor) -> Draw:
        """Fresh random numbers for a frame [B, C, H, W]."""
        b, c = frame.shape[:2]
        number = torch.randn if self.config.objective == "edm" else torch.rand
        level = number(b, device=frame.device)
        return Draw(level, torch.randn(b, c, 1, 1, device=frame.device), torch.randn_like(frame))

    def loss(
        self, frames: Tensor, action: Tensor | None, mask: Tensor, first: Tensor, guide: Tensor | None = None
    ) -> Tensor:
        """Mean over frames n .. T-1 of the mean over their unmasked samples.

        frames [B, T, C, H, W] in -1..1, action [B, T, A] (row t: what led to frame t), mask and first [B, T] bool,
        guide [B, T, C', H, W]. What is masked, or lies before the start of the target's episode, is blank: mid-grey
        and no action. A first frame is a target too, to be made from blanks, as in the code.
        """
        n, own = self.config.context, list(frames.unbind(1))
        episode = first.long().cumsum(1)
        total = torch.zeros((), device=mask.device)
        for i in range(n, len(own)):
            known = (mask & (episode == episode[:, i : i + 1]))[:, i - n : i + 1]
            past = torch.stack(own[i - n : i], 1) * known[:, :-1, None, None, None]
            taken = None
            if action is not None:
                taken = action[:, i - n + 1 : i + 1] * (known & ~first[:, i - n : i + 1])[:, 1:, None]
            context, context_told = self._noised_context(past.flatten(1, 2))
            if guide is not None:
                context = torch.cat([context, guide[:, i]], 1)
            noised = self._noised(own[i], self.draw(own[i]))
            modulation = self.net.condition(noised.told, taken, context_told)
            found = self.net(noised.x, self.net.look(context / self.config.sigma_data), modulation)
            error = (found - noised.target).square().mean((1, 2, 3))
            total = total + (error * mask[:, i]).sum() / mask[:, i].sum().clamp(min=1)
            if i + 1 < len(own):
                own[i] = from_levels(quantise(noised.clean(found.detach()), self.config.rounding))
        return total / (len(own) - n)

    @torch.no_grad()
    def sample(
        self,
        past: Tensor,
        action: Tensor | None,
        temperature: float = 1.0,
        guide: Tensor | None = None,
        steps: int | None = None,
        net: FrameDenoiser | None = None,
        sampler: EDMSampler | None = None,
    ) -> Tensor:
        """The next frame, uint8 [B, C, H, W].

        past [B, n, C, H, W] in -1..1, oldest first; action [B, n, A], the last one leads to the frame; guide
        [B, C', H, W]. Temperature scales all noise: 0 begins from zeros. `steps`: denoising steps, if other than
        configured; `net`: a prepared copy of F; `sampler`: instead of the configured one (objective edm).
        """
        config, b, net = self.config, len(past), net or self.net
        context = past.flatten(1, 2)
        is_edm = config.objective == "edm"
        sampler = sampler or self.sampler
        sampler = sampler if steps is None else replace(sampler, steps=steps)
        ddpm = config.ddpm if steps is None else replace(config.ddpm, steps=steps)
        if is_edm:
            levels = torch.tensor(sampler.told, device=past.device)
            scales = precondition(levels, config.sigma_data, config.offset_noise)
            told = scales.c_noise
        else:
            told = ddpm.told(torch.tensor(ddpm.visited, device=past.device))
        count = len(told)
        context_told = None
        if config.context_sigma:
            context_told = torch.full_like(told, config.context_sigma).log().div(4).repeat_interleave(b)
        taken = None if action is None else action.repeat(count, 1, 1)
        modulations = net.condition(told.repeat_interleave(b), taken, context_told)
        modulations = [m.reshape(count, b, -1).unbind(0) for m in modulations]
        seen = None

        def look() -> Tensor:
            full = context if guide is None else torch.cat([context, guide], 1)
            return net.look(full / config.sigma_data)

        def normal(x: Tensor) -> Tensor:
            return torch.randn_like(x) * temperature if temperature else torch.zeros_like(x)

        def predict(x: Tensor, k: int) -> Tensor:
            nonlocal context, seen
            if config.context_sigma and is_edm and sampler.begins_step(k):
                context = context + config.context_sigma * normal(context)
                seen = look()
            elif seen is None:
                seen = look()
            return net(x, seen, [m[k] for m in modulations])

        def tidy(x: Tensor) -> Tensor:
            return from_levels(quantise(x, config.rounding))

        def denoise(x: Tensor, k: int) -> Tensor:
            found = predict(x * scales.c_in[k], k)
            return tidy(scales.c_skip[k] * x + scales.c_out[k] * found)

        noise = normal(past[:, 0])
        frame = (
            sampler.sample(denoise, noise, normal) if is_edm else ddpm.sample(predict, noise, normal, tidy)
        )
        return quantise(frame, "round")  # it lies on a level but for rounding errors

    def _noised(self, frame: Tensor, draw: Draw) -> Noised:
        config = self.config
        if config.objective == "ddpm":
            t = (draw.level * config.ddpm.levels).long()
            noise = draw.noise + config.offset_noise * draw.offset
            kept = config.ddpm.kept(t)[:, None, None, None]
            z = config.ddpm.noisy(frame, t, noise)
            return Noised(z, config.ddpm.told(t), noise, lambda f: (z - (1 - kept).sqrt() * f) / kept.sqrt())
        sigma = config.law.sigma(draw.level)
        z = frame + config.offset_noise * draw.offset + sigma[:, None, None, None] * draw.noise
        scales = precondition(sigma, config.sigma_data, config.offset_noise)
        c_in, c_out, c_skip = (c[:, None, None, None] for c in (scales.c_in, scales.c_out, scales.c_skip))
        return Noised(
            c_in * z, scales.c_noise, (frame - c_skip * z) / c_out, lambda f: c_skip * z + c_out * f
        )

    def _noised_context(self, context: Tensor) -> tuple[Tensor, Tensor | None]:
        """Past frames [B, nC, H, W] with noise of their own, and its level as the network is told it."""
        if not self.config.noises_context:
            return context, None
        draw = self.draw(context)
        sigma = self.config.law.sigma(torch.randn(len(context), device=context.device))
        noise = self.config.offset_noise * draw.offset + sigma[:, None, None, None] * draw.noise
        return context + noise, sigma.log() / 4  # the code: without the offset noise
