"""The recurrent state-space model of DreamerV3's first generation (2023): one GRU with a layer norm.

    x  = act(norm(W [z, a]))
    r, c, u = norm(W [h, x])
    h' = u tanh(r c) + (1 - u) h          with sigmoid(r), sigmoid(u - 1)

An episode begins with a learned h = tanh(w) and the likeliest z of the prior of that h. Prior and posterior have one
hidden layer each.

Source: Hafner et al. 2023, "Mastering diverse domains through world models" (arXiv 2301.04104v1) and its code.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from oneiro.nets import onehot
from oneiro.nets.layer_norm import EPS, Hidden, NormMLP, Output, norm_silu
from oneiro.nets.layers import init_dreamer
from oneiro.nets.rssm import RSSM


class Cell(NamedTuple):
    """The weights that a step needs, cast once for all steps of a call."""

    dtype: torch.dtype
    stoch: Tensor  # [d, Z]: of the layer that reads z and the action
    action: Tensor  # [d, A]
    gates: Tensor  # [3D, D + d]
    seen_h: Tensor  # [d, D]: of the posterior's hidden layer
    seen_tokens: Tensor  # [d, K]
    logit: tuple[Tensor, Tensor]


class GRURSSM(RSSM):
    """`deter_dim` D, `stoch` S variables of `classes` C, hidden layers of `units` d."""

    def __init__(
        self,
        *,
        deter_dim: int,
        stoch: int,
        classes: int,
        units: int,
        action_dim: int,
        token_dim: int,
        unimix: float,
    ) -> None:
        super().__init__(stoch, classes, unimix)
        z = stoch * classes
        self.first = nn.Parameter(torch.zeros(deter_dim))
        self.inward = Hidden(z + action_dim, units)
        self.gates = nn.Parameter(torch.empty(3 * deter_dim, deter_dim + units))
        self.gates_norm = nn.LayerNorm(3 * deter_dim, EPS)
        self.prior_net = NormMLP(deter_dim, units, 1, z)
        self.seen = Hidden(deter_dim + token_dim, units)
        self.seen_logit = Output(units, z)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the gates anew; the other layers have their own rule."""
        init_dreamer(self.gates, sum(self.gates.shape) / 2)

    def initial(self, n: int) -> tuple[Tensor, Tensor]:
        """The learned h, and the likeliest z after it."""
        h = torch.tanh(self.first).expand(1, -1)
        probs = self.prior(h, h.dtype).detach()
        z = onehot.pick(probs, probs.new_zeros(probs.shape[:2]), 0.0)
        return h.repeat(n, 1), z.repeat(n, 1, 1)

    def cell(self, dtype: torch.dtype) -> Cell:
        """The weights of a step in `dtype`, on the graph."""
        z, width = self.shape[0] * self.shape[1], len(self.first)
        stoch, action = self.inward.weight.to(dtype).tensor_split((z,), 1)
        seen_h, seen_tokens = self.seen.weight.to(dtype).tensor_split((width,), 1)
        logit = self.seen_logit.weight.to(dtype), self.seen_logit.bias.to(dtype)
        return Cell(dtype, stoch, action, self.gates.to(dtype), seen_h, seen_tokens, logit)

    def push(self, cell: Cell, action: Float[Tensor, "*b a"]) -> Float[Tensor, "*b d"]:
        """What the action adds to the layer before the GRU."""
        return F.linear(action.to(cell.dtype), cell.action)

    def see(self, cell: Cell, tokens: Float[Tensor, "*b k"]) -> Float[Tensor, "*b u"]:
        """What the tokens add to the posterior's hidden layer."""
        return F.linear(tokens.to(cell.dtype), cell.seen_tokens)

    def core(
        self, cell: Cell, h: Float[Tensor, "b d"], z: Float[Tensor, "b z"], push: Float[Tensor, "b p"]
    ) -> Float[Tensor, "b d"]:
        """The next h in float32; `z` is flat."""
        x = norm_silu(torch.addmm(push, z.to(cell.dtype), cell.stoch.t()), self.inward.norm)
        gates = self.gates_norm(F.linear(torch.cat([h.to(cell.dtype), x], -1), cell.gates).float())
        reset, cand, update = gates.chunk(3, -1)
        return torch.lerp(h, torch.tanh(torch.sigmoid(reset) * cand), torch.sigmoid(update - 1))

    def posterior(
        self, cell: Cell, h: Float[Tensor, "b d"], seen: Float[Tensor, "b u"]
    ) -> Float[Tensor, "b s c"]:
        """Probabilities of z given h and the tokens' projection (`see`)."""
        x = norm_silu(torch.addmm(seen, h.to(cell.dtype), cell.seen_h.t()), self.seen.norm)
        return self.mixed(F.linear(x, *cell.logit).float())

    def prior(self, h: Float[Tensor, "*b d"], dtype: torch.dtype) -> Float[Tensor, "*b s c"]:
        """Probabilities of z given h alone."""
        return self.mixed(self.prior_net(h.to(dtype)))
