"""Scalars of any size as a categorical over fixed bins, and the symmetric logarithm.

Source: Hafner et al. 2023, "Mastering diverse domains through world models", eq. 1 (symlog), 9 and 10 (two-hot);
danijar/dreamerv3.
"""

from typing import Literal

import torch
from torch import Tensor, nn


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|): near 0 the identity, far out a logarithm."""
    return torch.sign(x) * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`: sign(x) (exp(|x|) - 1)."""
    return torch.sign(x) * torch.expm1(x.abs())


class TwoHot(nn.Module):
    """A number read from logits [.., bins], and the cross entropy that fits them to a number.

    A target between two bins is their mixture: weight 1 - w on the lower, w on the upper, so that the mean of the
    two is the target. Targets beyond the last bins count as the last bins.

        space       bins                                   mean
        "real"      symexp(-limit .. limit), uneven        sum p b             DreamerV3 (2024 on)
        "symlog"    -limit .. limit, even; symlog(target)  symexp(sum p b)     DreamerV3 (2023), STORM
    """

    bins: Tensor

    def __init__(
        self, bins: int = 255, limit: float = 20.0, space: Literal["real", "symlog"] = "real"
    ) -> None:
        """`bins` is odd, so that one of them is 0."""
        super().__init__()
        if bins < 3 or bins % 2 == 0:
            raise ValueError(f"bins = {bins}: choose an odd number of at least 3, so that one bin is 0")
        if space not in ("real", "symlog"):
            raise ValueError(f"space = {space!r}: choose 'real' or 'symlog'")
        self.space = space
        lower = torch.linspace(-limit, 0, bins // 2 + 1, dtype=torch.float64)
        lower = symexp(lower) if space == "real" else lower
        self.register_buffer("bins", torch.cat([lower, -lower[:-1].flip(0)]).float(), persistent=False)

    def mean(self, logits: Tensor) -> Tensor:
        """[.., bins] -> [..] float32.

        Mirrored bins are summed in pairs, so that symmetric logits, and so a head whose output starts at zero,
        give exactly 0 although the outer bins are huge.
        """
        return self.expected(logits.float().softmax(-1))

    def expected(self, p: Tensor) -> Tensor:
        """`mean` of probabilities [.., bins]."""
        half = len(self.bins) // 2
        pairs = p[..., half + 1 :] - p[..., :half].flip(-1)
        mean = torch.matmul(pairs, self.bins[half + 1 :])
        return mean if self.space == "real" else symexp(mean)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross entropy [..] of logits [.., bins] to the two-hot form of `target` [..], float32."""
        return self.cross_entropy(logits.float().log_softmax(-1), target[..., None])[..., 0]

    def cross_entropy(self, log_p: Tensor, target: Tensor) -> Tensor:
        """[.., K] of log-probabilities [.., bins] to K numbers [.., K] each: one pass over the bins for all of them."""
        target = target.detach().float()
        target = target if self.space == "real" else symlog(target)
        low = torch.searchsorted(self.bins, target.contiguous(), right=True).sub_(1)
        low = low.clamp_(0, len(self.bins) - 2)
        below, above = self.bins[low], self.bins[low + 1]
        weight = ((target - below) / (above - below)).clamp(0, 1)
        lower, upper = log_p.gather(-1, torch.cat([low, low + 1], -1)).chunk(2, -1)
        return -torch.lerp(lower, upper, weight)
