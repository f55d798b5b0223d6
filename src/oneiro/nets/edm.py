"""EDM diffusion: noise law, preconditioning, sigma schedule, samplers, and the quantiser of predicted frames.

Paper: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models" (arXiv 2206.00364),
with the changes of DIAMOND (arXiv 2405.12399; "code" = its released code). Nothing here knows of frames, actions or
networks: a denoiser is a function, so any system that denoises pictures or latents can use it.

    training   z = x + offset * u + sigma * eps          u: one number per channel, eps: one per pixel
               D = c_skip * z + c_out * F(c_in * z, c_noise)        F is fitted to (x - c_skip * z) / c_out
    sampling   sigma_0 > sigma_1 > .. > sigma_n = 0, one or two evaluations of D each

Why not a library: the Euler scheduler of diffusers starts from sigma_max * N(0, I), knows neither offset noise (which
changes all four scales) nor a quantised D, and tells the network another sigma under churn. DIAMOND's agents were
trained with exactly these choices. What is left to share is the one line of the sigma schedule.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Rounding = Literal["truncate", "round"]


@dataclass(frozen=True, kw_only=True)
class NoiseLaw:
    """ln sigma ~ N(mean, std^2), sigma clipped. EDM, table 1; the clip is in DIAMOND's code only."""

    mean: float = -0.4  # P_mean (EDM on single images: -1.2; DIAMOND at Counter-Strike: -1.2)
    std: float = 1.2  # P_std
    smallest: float = 0.002  # sigma below this is raised to it
    largest: float = 20.0  # sigma above this is lowered to it

    def __post_init__(self) -> None:
        if self.std < 0 or not 0 < self.smallest <= self.largest:
            raise ValueError(
                f"std {self.std} must not be negative, and 0 < smallest {self.smallest} <= largest {self.largest}"
            )

    def sigma(self, normal: Tensor) -> Tensor:
        """Standard normal numbers -> sigma, of the same shape."""
        return (normal * self.std + self.mean).exp().clip(self.smallest, self.largest)


@dataclass(frozen=True)
class Scales:
    """The preconditioners of EDM, each of the shape of sigma."""

    c_in: Tensor
    c_out: Tensor
    c_skip: Tensor
    c_noise: Tensor


def precondition(sigma: Tensor, data: float = 0.5, offset: float = 0.0) -> Scales:
    """Scales for pixels of standard deviation `data` under noise `sigma` [..] and offset noise `offset`.

    Code: all four are those of sqrt(sigma^2 + offset^2). Paper (EDM, table 1): offset = 0.
    """
    sigma = (sigma.square() + offset**2).sqrt()
    total = sigma.square() + data**2
    c_skip = data**2 / total
    return Scales(total.rsqrt(), sigma * c_skip.sqrt(), c_skip, sigma.log() / 4)


def quantise(x: Tensor, rounding: Rounding) -> Tensor:
    """Float pictures in -1..1 (clamped) -> uint8 levels, truncated as in the code or rounded.

    Truncating uint8 -> float32 -> uint8 loses one level for each of the levels 1 to 63; rounding loses none.
    """
    level = x.float().clamp(-1, 1).add(1).div(2).mul(255)
    return (level if rounding == "truncate" else level.round()).to(torch.uint8)


def from_levels(levels: Tensor) -> Tensor:
    """Levels uint8 in 0..255 -> float32 in -1..1."""
    return levels.float().div_(255).mul_(2).sub_(1)


def karras_sigmas(steps: int, smallest: float = 0.002, largest: float = 5.0, rho: float = 7.0) -> list[float]:
    """sigma_0 .. sigma_n of n `steps`, in float32, the last one 0 (EDM, eq. 5). One step is [largest, 0]."""
    ramp = torch.linspace(0, 1, steps, device="cpu")
    low, high = smallest ** (1 / rho), largest ** (1 / rho)
    return [*((high + ramp * (low - high)) ** rho).tolist(), 0.0]


@dataclass(frozen=True, kw_only=True)
class EDMSampler:
    """From noise to a picture. The defaults are DIAMOND's on Atari."""

    steps: int = 3  # n, denoising steps
    sigma_min: float = 0.002  # of the last step before 0
    sigma_max: float = 5.0  # of the first step
    rho: float = 7.0  # bends the schedule towards small sigmas
    order: Literal[1, 2] = 1  # 1 = Euler, 2 = Heun (twice the work, but for the last step)
    churn: float = 0.0  # S_churn: noise added again before each step
    churn_min: float = 0.0  # S_tmin: only where sigma is at least this
    churn_max: float = math.inf  # S_tmax: and at most this
    churn_noise: float = 1.0  # S_noise: standard deviation of that noise
    start: Literal["unit", "sigma_max"] = (
        "unit"  # first x: N(0, I) as in DIAMOND's code, or sigma_max * N(0, I) (EDM)
    )
    churned: Literal["sigma", "sigma_hat"] = (
        "sigma"  # what D is told after churn: the old sigma (code) or the new (EDM)
    )

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if not 0 < self.sigma_min <= self.sigma_max or self.rho <= 0:
            raise ValueError(
                f"0 < sigma_min {self.sigma_min} <= sigma_max {self.sigma_max} and rho {self.rho} > 0 are needed"
            )
        if self.order not in (1, 2):
            raise ValueError(f"order is {self.order}; 1 is Euler, 2 is Heun")
        if self.churn < 0 or self.churn_noise < 0:
            raise ValueError(f"churn {self.churn} and churn_noise {self.churn_noise} must not be negative")

    @property
    def sigmas(self) -> list[float]:
        """n + 1 numbers, the last one 0."""
        return karras_sigmas(self.steps, self.sigma_min, self.sigma_max, self.rho)

    @property
    def told(self) -> list[float]:
        """The sigma of every evaluation of D, in order: whatever depends on sigma only can be made beforehand."""
        told = []
        for sigma, following in itertools.pairwise(self.sigmas):
            told.append(self._churned(sigma) if self.churned == "sigma_hat" else sigma)
            if self.order == 2 and following > 0:
                told.append(following)
        return told

    def begins_step(self, k: int) -> bool:
        """True if evaluation k is the first of its step (Heun's second one is not)."""
        return self.order == 1 or k % 2 == 0

    def walk(
        self,
        denoise: Callable[[Tensor, int], Tensor],
        noise: Tensor,
        normal: Callable[[Tensor], Tensor] = torch.randn_like,
    ) -> Iterator[Tensor]:
        """Yields x before the first step and after each; the last one is the picture.

        `denoise(x, k)` is D of evaluation k, whose sigma is `told[k]`. `noise` is what `start` scales; `normal(x)`
        gives the noise of churn.
        """
        x = noise * self.sigma_max if self.start == "sigma_max" else noise
        yield x
        k = 0
        for sigma, following in itertools.pairwise(self.sigmas):
            raised = self._churned(sigma)
            if raised > sigma:
                x = x + normal(x) * (self.churn_noise * math.sqrt(raised**2 - sigma**2))
            slope = (x - denoise(x, k)) / raised
            ahead = x + slope * (following - raised)
            k += 1
            if self.order == 2 and following > 0:
                slope = (slope + (ahead - denoise(ahead, k)) / following) / 2
                ahead = x + slope * (following - raised)
                k += 1
            x = ahead
            yield x

    def sample(
        self,
        denoise: Callable[[Tensor, int], Tensor],
        noise: Tensor,
        normal: Callable[[Tensor], Tensor] = torch.randn_like,
    ) -> Tensor:
        """The picture: the last x of `walk`."""
        *_, x = self.walk(denoise, noise, normal)
        return x

    def _churned(self, sigma: float) -> float:
        """sigma_hat = (1 + gamma) sigma (EDM, algorithm 2)."""
        if not self.churn_min <= sigma <= self.churn_max:
            return sigma
        return sigma * (1 + min(self.churn / self.steps, math.sqrt(2) - 1))
