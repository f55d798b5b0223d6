"""Returns of imagined and recorded rows, for every behaviour that is fitted by gradient.

All of it reads arrival rows, in which row t holds the reward of *arriving* at t and whether t goes on:

    row          0      1      2     ...     H
    action              a1     a2            aH       chosen in row t - 1
    reward       -      r1     r2            rH       column 0 is not used
    cont         c0     c1     c2            cH       probability that row t is not terminal; column 0: where it began
    value        v0     v1     v2            vH
    return       R0     R1     ...   R(H-1)           R(t) = r(t+1) + discount c(t+1) [(1 - lam) v(t+1) + lam R(t+1)]
    weight       w0     w1     w2    ...              w(t) = product of discount c(k) over k <= t

A policy that chose a(t+1) in row t is credited with R(t), weighted by w(t), the chance that row t is reached at all.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def lambda_return(
    reward: Float[Tensor, "*b h1"],
    cont: Float[Tensor, "*b h1"] | None,
    value: Float[Tensor, "*b h1"],
    *,
    discount: float,
    lam: float,
    is_last: Bool[Tensor, "*b h1"] | None = None,
) -> Float[Tensor, "*b h"]:
    """TD(lambda) targets of rows 0 .. H-1, bootstrapped from `value` of row H; the graph is kept.

    `cont` None is read as 1. A recorded sequence may hold the end of an episode: from row t with `is_last` no
    later reward is seen, so the return stops at its value (at 0 if it is terminal: cont 0). What comes out for
    such a row t itself reaches into the next episode and must not be used.

    Sutton & Barto 2018, eq. 12.20; Hafner et al. 2025, eq. 7.
    """
    rest = torch.full_like(reward, discount) if cont is None else discount * cont
    mix = lam if is_last is None else lam * (~is_last).to(reward.dtype)
    # All columns at once; what is left for the loop is one multiplication and one addition a step.
    start = (reward + rest * (1 - mix) * value)[..., 1:].unbind(-1)
    slope = (rest * mix)[..., 1:].unbind(-1)
    found = value[..., -1]
    returns = []
    for a, b in zip(reversed(start), reversed(slope), strict=True):
        found = torch.addcmul(a, b, found)
        returns.append(found)
    return torch.stack(returns[::-1], -1)


def alive_weight(cont: Float[Tensor, "*b h"], *, discount: float) -> Float[Tensor, "*b h"]:
    """Product of `discount * cont` up to and with each row, without a graph; column 0 counts the start itself."""
    return (discount * cont.detach()).cumprod(-1)


def episode_ends(
    is_first: Bool[Tensor, "b t"], terminated: Bool[Tensor, "b t"], mask: Bool[Tensor, "b t"]
) -> Bool[Tensor, "b t"]:
    """True in the last row of an episode: terminal, or before an is_first row, or before padding.

    The last column is the end of the sequence, not of the episode, unless it is terminal.
    """
    ends = terminated.clone()
    ends[:, :-1] |= is_first[:, 1:] | ~mask[:, 1:]
    return ends


class PercentileScale(nn.Module):
    """Range of returns: max(limit, high - low), where high and low are running percentiles of the batches.

    Both start at 0 and are not corrected for it, so that the scale stays at `limit` for long at first (Hafner et
    al. 2025, eq. 12, and the code). They are buffers: a checkpoint has them.
    """

    low: Tensor
    high: Tensor
    percentiles: Tensor

    def __init__(
        self, rate: float = 0.01, percentiles: tuple[float, float] = (0.05, 0.95), limit: float = 1.0
    ) -> None:
        super().__init__()
        if not 0 < rate <= 1 or not 0 <= percentiles[0] < percentiles[1] <= 1 or limit <= 0:
            raise ValueError(
                f"rate {rate} must lie in (0, 1], percentiles {percentiles} ascend in 0..1, limit {limit} be positive"
            )
        self.rate, self.limit = rate, limit
        self.everywhere: Callable[[Tensor], Tensor] = lambda x: x
        """[n] -> [N n]: set where N processes share a batch, so that the percentiles are those of all of it."""
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("percentiles", torch.tensor(percentiles), persistent=False)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Move towards the percentiles of `x` [..], interpolated linearly. Numbers that are not finite are ignored."""
        found = torch.quantile(self.everywhere(x.detach().float().flatten()), self.percentiles)
        for buffer, new in ((self.low, found[0]), (self.high, found[1])):
            buffer.lerp_(torch.where(new.isfinite(), new, buffer), self.rate)

    def forward(self) -> Tensor:
        """The scale, a scalar; no device sync."""
        return (self.high - self.low).clamp(min=self.limit)
