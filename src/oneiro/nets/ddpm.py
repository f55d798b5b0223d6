"""DDPM: the noise-predicting diffusion that DIAMOND is compared with (its section 5.1).

Paper: Ho et al. 2020, "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239), linear betas.

    training   z = sqrt(abar_t) x + sqrt(1 - abar_t) eps         F(z, (t + 1) / T) is fitted to eps
    sampling   the posterior of eq. 7 over n of the T steps, in the middle of n equal shares: n = 1 is t = T/2

As in DIAMOND's DDPM branch: T = 1000, time told as (t + 1) / T, offset noise, one step from t = 500. How that branch
spaces its steps for n > 1 is not published in the paper; equal shares give its t for n = 1.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from oneiro.runtime import wide_device


@dataclass(frozen=True, kw_only=True)
class DDPM:
    """Noise schedule and ancestral sampler."""

    levels: int = 1000  # T, noise levels
    beta_first: float = 1e-4  # variance added at the first level
    beta_last: float = 0.02  # and at the last one
    steps: int = 10  # n, denoising steps when sampling

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= self.levels:
            raise ValueError(f"steps must be from 1 to levels = {self.levels}, got {self.steps}")
        if not 0 < self.beta_first <= self.beta_last < 1:
            raise ValueError(f"0 < beta_first {self.beta_first} <= beta_last {self.beta_last} < 1 is needed")

    def kept(self, t: Tensor) -> Tensor:
        """abar_t, the share of the picture's variance left at levels t (int64 [..], 0 .. T - 1), float32."""
        ends, home = (self.beta_first, self.beta_last), wide_device(t.device)
        betas = torch.linspace(*ends, self.levels, dtype=torch.float64, device=home)
        return (1 - betas).cumprod(0).to(t.device, torch.float32)[t]

    def told(self, t: Tensor) -> Tensor:
        """What the network is told about level t."""
        return (t + 1).float() / self.levels

    def noisy(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x [B, ..] at levels t [B]."""
        kept = self.kept(t).reshape(-1, *[1] * (x.ndim - 1))
        return kept.sqrt() * x + (1 - kept).sqrt() * noise

    @property
    def visited(self) -> list[int]:
        """The n levels visited when sampling, from noisy to clean."""
        return [int(self.levels * (k + 0.5) / self.steps) for k in reversed(range(self.steps))]

    def walk(
        self,
        predict: Callable[[Tensor, int], Tensor],
        noise: Tensor,
        normal: Callable[[Tensor], Tensor] = torch.randn_like,
        tidy: Callable[[Tensor], Tensor] = lambda x: x.clamp(-1, 1),
    ) -> Iterator[Tensor]:
        """Yields z before the first step and after each; the last one is the picture.

        `predict(z, k)` is eps at level `visited[k]`; `tidy` is applied to every estimate of the picture.
        """
        z = noise
        yield z
        kept = [*self.kept(torch.tensor(self.visited, device="cpu")).tolist(), 1.0]
        for k, (now, later) in enumerate(itertools.pairwise(kept)):
            picture = tidy((z - math.sqrt(1 - now) * predict(z, k)) / math.sqrt(now))
            if later == 1.0:
                yield picture
                return
            step = now / later  # alpha of the stretch between the two levels
            mean = (
                math.sqrt(later) * (1 - step) / (1 - now) * picture
                + math.sqrt(step) * (1 - later) / (1 - now) * z
            )
            z = mean + math.sqrt((1 - later) / (1 - now) * (1 - step)) * normal(z)
            yield z

    def sample(
        self,
        predict: Callable[[Tensor, int], Tensor],
        noise: Tensor,
        normal: Callable[[Tensor], Tensor] = torch.randn_like,
        tidy: Callable[[Tensor], Tensor] = lambda x: x.clamp(-1, 1),
    ) -> Tensor:
        """The picture: the last z of `walk`."""
        *_, z = self.walk(predict, noise, normal, tidy)
        return z
