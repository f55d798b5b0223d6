"""The recurrent state-space model of DreamerV3: a block-diagonal GRU and categorical latents.

    x  = [act(norm(W h)), act(norm(W z)), act(norm(W a))]        three parts of width d
    y  = act(norm(block(h, x)))                                  every block sees its slice of h and all of x
    r, c, u = block(y), split inside each block
    h' = u tanh(r c) + (1 - u) h          with sigmoid(r), sigmoid(u - 1)

Source: Hafner et al. 2025, "Mastering diverse control tasks through world models"; danijar/dreamerv3.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from oneiro.nets.layers import MLP, BlockLinear, Linear, RMSNorm
from oneiro.nets.rssm import RSSM

_sigmoid_backward = torch.ops.aten.sigmoid_backward.default
_tanh_backward = torch.ops.aten.tanh_backward.default


class Cell(NamedTuple):
    """The weights that a step needs, cast once for all steps of a call."""

    dtype: torch.dtype
    deter: tuple[Tensor, Tensor]
    stoch: tuple[Tensor, Tensor]
    action: tuple[Tensor, Tensor]
    block_h: Tensor  # [G, D/G, D/G], input first: a block's own slice of h
    block_x: Tensor  # [D, 2d]: from deter and stoch to all blocks
    block_a: tuple[Tensor, Tensor]  # [D, d] and bias: from the action to all blocks
    gates: tuple[Tensor, Tensor]  # [G, D/G, 3D/G] and, in float32, [G, 1, 3D/G]: r, u - 1, 2 c
    seen_h: Tensor  # [d, D]: the posterior's first layer, from h
    seen_tokens: tuple[Tensor, Tensor]  # and from the tokens
    seen_out: tuple[Tensor, Tensor]


class BlockRSSM(RSSM):
    """`deter_dim` D in `blocks` G, `stoch` S variables of `classes` C, hidden layers of `units` d."""

    def __init__(
        self,
        *,
        deter_dim: int,
        stoch: int,
        classes: int,
        units: int,
        blocks: int,
        action_dim: int,
        token_dim: int,
        unimix: float,
    ) -> None:
        super().__init__(stoch, classes, unimix)
        self.blocks = blocks
        self.in_deter, self.deter_norm = Linear(deter_dim, units), RMSNorm(units)
        self.in_stoch, self.stoch_norm = Linear(stoch * classes, units), RMSNorm(units)
        self.in_action, self.action_norm = Linear(action_dim, units), RMSNorm(units)
        self.hidden = BlockLinear(deter_dim + blocks * 3 * units, deter_dim, blocks)
        self.hidden_norm = RMSNorm(deter_dim)
        self.gates = BlockLinear(deter_dim, 3 * deter_dim, blocks)
        self.prior_net = MLP(deter_dim, units, 2, stoch * classes)
        self.seen, self.seen_norm = Linear(deter_dim + token_dim, units), RMSNorm(units)
        self.seen_logit = Linear(units, stoch * classes)

    def initial(self, n: int) -> tuple[Tensor, Tensor]:
        """Zeros."""
        like = self.hidden.bias
        return like.new_zeros(n, len(like)), like.new_zeros(n, *self.shape)

    def cell(self, dtype: torch.dtype) -> Cell:
        """The weights of a step in `dtype`, on the graph."""
        units, width = self.in_deter.weight.shape
        hidden = self.hidden.weight.to(dtype)
        h, xz, a = hidden.split((width // self.blocks, 2 * units, units), -1)
        seen, bias = _cast(self.seen, dtype)
        seen_h, seen_tokens = seen.split((width, seen.shape[1] - width), -1)
        return Cell(
            dtype,
            _cast(self.in_deter, dtype),
            _cast(self.in_stoch, dtype),
            _cast(self.in_action, dtype),
            h.transpose(1, 2),
            xz.flatten(0, 1),
            (a.flatten(0, 1), self.hidden.bias.to(dtype)),
            self._gates(dtype),
            seen_h,
            (seen_tokens, bias),
            _cast(self.seen_logit, dtype),
        )

    def _gates(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Reset, update - 1 and twice the candidate, as `_Gates` wants them; the parameters are r, c, u."""
        r, c, u = self.gates.weight.to(dtype).transpose(1, 2).chunk(3, -1)
        b_r, b_c, b_u = rearrange(self.gates.bias, "(g k) -> g 1 k", g=self.blocks).chunk(3, -1)
        return torch.cat([r, u, 2 * c], -1), torch.cat([b_r, b_u - 1, 2 * b_c], -1)

    def push(self, cell: Cell, action: Float[Tensor, "*b a"]) -> Float[Tensor, "*b d"]:
        """What the action adds to the input of all blocks, bias included."""
        x = self.action_norm.silu(F.linear(action.to(cell.dtype), *cell.action))
        return F.linear(x, *cell.block_a)

    def core(
        self, cell: Cell, h: Float[Tensor, "b d"], z: Float[Tensor, "b z"], push: Float[Tensor, "b p"]
    ) -> Float[Tensor, "b d"]:
        """The next h in float32; `z` is flat."""
        low = h.to(cell.dtype)
        x = self.deter_norm.silu(F.linear(low, *cell.deter))
        y = self.stoch_norm.silu(F.linear(z.to(cell.dtype), *cell.stoch))
        to_all = torch.addmm(push, torch.cat([x, y], -1), cell.block_x.t())
        y = torch.baddbmm(self._split(to_all), self._split(low), cell.block_h)  # [G B D/G]
        y = self.hidden_norm.silu(self._join(y))
        weight, bias = cell.gates
        gates = torch.bmm(self._split(y), weight).float().add_(bias)  # float32 from here on
        return self._join(_mixed(gates, self._split(h)))

    def posterior(
        self, cell: Cell, h: Float[Tensor, "b d"], seen: Float[Tensor, "b u"]
    ) -> Float[Tensor, "b s c"]:
        """Probabilities of z given h and the tokens' projection (`see`)."""
        x = torch.addmm(seen, h.to(cell.dtype), cell.seen_h.t())
        x = self.seen_norm.silu(x)
        return self.mixed(F.linear(x, *cell.seen_out).float())

    def see(self, cell: Cell, tokens: Float[Tensor, "*b k"]) -> Float[Tensor, "*b u"]:
        """What the tokens add to the posterior's first layer, bias included."""
        return F.linear(tokens.to(cell.dtype), *cell.seen_tokens)

    def _split(self, x: Tensor) -> Tensor:
        """[B, D] -> [G, B, D/G], a view."""
        return x.unflatten(-1, (self.blocks, -1)).transpose(0, 1)

    def _join(self, x: Tensor) -> Tensor:
        """[G, B, D/G] -> [B, D]."""
        return x.transpose(0, 1).flatten(1)


def _mixed(gates: Tensor, old: Tensor) -> Tensor:
    """See `_Gates`; without a gradient `gates` is used up."""
    if torch.is_grad_enabled() and (gates.requires_grad or old.requires_grad):
        return _Gates.apply(gates, old)  # type: ignore[return-value]
    k = old.shape[-1]
    reset, update = gates[..., : 2 * k].sigmoid_().chunk(2, -1)
    return torch.lerp(old, _candidate(gates[..., 2 * k :] * reset), update)


def _candidate(x: Tensor) -> Tensor:
    """tanh(x / 2) = 2 sigmoid(x) - 1, x used up: the CPU's tanh takes four times as long."""
    return torch.rsub(x.sigmoid_(), -1, alpha=-2)


class _Gates(torch.autograd.Function):
    """r, u, c side by side [.., 3k] and old [.., k] -> u tanh(r c / 2) + (1 - u) old, with sigmoid(r), sigmoid(u)."""

    @staticmethod
    def forward(ctx: FunctionCtx, gates: Tensor, old: Tensor) -> Tensor:
        k = old.shape[-1]
        cand = gates[..., 2 * k :]
        reset, update = torch.sigmoid(gates[..., : 2 * k]).chunk(2, -1)
        new = _candidate(cand * reset)
        ctx.save_for_backward(reset, cand, new, update, old)
        return torch.lerp(old, new, update)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor]:
        reset, cand, new, update, old = ctx.saved_tensors  # type: ignore[attr-defined]
        own = grad * update
        inner = _tanh_backward(own, new).mul_(0.5)
        of_reset = _sigmoid_backward(inner * cand, reset)
        of_update = _sigmoid_backward((new - old).mul_(grad), update)
        return torch.cat([of_reset, of_update, inner * reset], -1), grad - own


def _cast(layer: Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    assert layer.bias is not None
    return layer.weight.to(dtype), layer.bias.to(dtype)
