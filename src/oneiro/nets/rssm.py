"""`RSSM`: what recurrent state-space models with categorical latents have in common.

    deter h, stoch z, action a --core--> h' --prior--> z'        (imagined)
                                         h', tokens --posterior--> z'   (seen)

`scan` runs the posterior over a sequence. What does not depend on the step before (`push` of actions, `see` of
tokens) is computed for all steps at once; the prior is asked for afterwards. h is carried in float32, matrix products
run in the dtype that `cell` is asked for.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from oneiro.nets import onehot


class Posterior(NamedTuple):
    """What `scan` returns, on the graph; `follow` returns the same of one row [B]."""

    deter: Tensor  # [B, T, D]
    stoch: Tensor  # [B, T, S, C]
    probs: Tensor  # [B, T, S, C]


class RSSM(nn.Module, ABC):
    """`stoch` S variables of `classes` C each; `unimix` is the share of the uniform distribution in them."""

    prior_net: nn.Module
    """h -> the prior's logits."""

    def __init__(self, stoch: int, classes: int, unimix: float) -> None:
        super().__init__()
        self.shape, self.unimix = (stoch, classes), unimix

    @abstractmethod
    def initial(self, n: int) -> tuple[Tensor, Tensor]:
        """(h [n, D], z [n, S, C]) at the beginning of an episode, before its first row."""

    @abstractmethod
    def cell(self, dtype: torch.dtype) -> Any:
        """The weights of a step in `dtype`, on the graph: cast once for all steps of a call."""

    @abstractmethod
    def push(self, cell: Any, action: Float[Tensor, "*b a"]) -> Float[Tensor, "*b d"]:
        """What the action adds to the core."""

    @abstractmethod
    def see(self, cell: Any, tokens: Float[Tensor, "*b k"]) -> Float[Tensor, "*b u"]:
        """What the tokens add to the posterior."""

    @abstractmethod
    def core(
        self, cell: Any, h: Float[Tensor, "b d"], z: Float[Tensor, "b z"], push: Float[Tensor, "b p"]
    ) -> Float[Tensor, "b d"]:
        """The next h in float32; `z` is flat."""

    @abstractmethod
    def posterior(
        self, cell: Any, h: Float[Tensor, "b d"], seen: Float[Tensor, "b u"]
    ) -> Float[Tensor, "b s c"]:
        """Probabilities of z given h and what `see` made of the tokens."""

    def prior(self, h: Float[Tensor, "*b d"], dtype: torch.dtype) -> Float[Tensor, "*b s c"]:
        """Probabilities of z given h alone."""
        return self.mixed(self.prior_net(h.to(dtype)))

    def scan(
        self,
        cell: Any,
        h: Float[Tensor, "b d"],
        z: Float[Tensor, "b s c"],
        tokens: Float[Tensor, "b t k"],
        action: Float[Tensor, "b t a"],
        first: Bool[Tensor, "b t"],
        mask: Bool[Tensor, "b t"],
        uniform: Float[Tensor, "b t s"],
    ) -> Posterior:
        """The posterior of every row, each from the one before; `action` is zero where `first`.

        An `is_first` row starts from `initial`; a row outside of `mask` hands on the state before it.
        """
        h0, z0 = (x.flatten(1) for x in self.initial(1))
        z = z.flatten(1)
        rows = zip(
            self.push(cell, action).unbind(1),
            self.see(cell, tokens).unbind(1),
            first[..., None].unbind(1),
            mask[..., None].unbind(1),
            uniform.unbind(1),
            strict=True,
        )
        deter, stoch, probs = [], [], []
        for push, seen, begins, known, chance in rows:
            start = torch.where(begins, h0, h), torch.where(begins, z0, z)
            new, drawn, p = self.follow(cell, *start, push, seen, chance)
            h = torch.where(known, new, h)
            z = torch.where(known, drawn.flatten(1), z)
            deter.append(h)
            stoch.append(z)
            probs.append(p)
        drawn = torch.stack(stoch, 1).unflatten(-1, self.shape)
        return Posterior(torch.stack(deter, 1), drawn, torch.stack(probs, 1))

    def follow(
        self,
        cell: Any,
        h: Float[Tensor, "b d"],
        z: Float[Tensor, "b z"],
        push: Float[Tensor, "b p"],
        seen: Float[Tensor, "b u"],
        uniform: Float[Tensor, "b s"],
    ) -> Posterior:
        """One row of `scan`, from the state before it; `z` is flat."""
        new = self.core(cell, h, z, push)
        p = self.posterior(cell, new, seen)
        return Posterior(new, onehot.straight_through(onehot.pick(p, uniform), p), p)

    def mixed(self, logits: Float[Tensor, "*b z"]) -> Float[Tensor, "*b s c"]:
        """Probabilities of z from flat logits."""
        return onehot.unimix(logits.unflatten(-1, self.shape), self.unimix)
