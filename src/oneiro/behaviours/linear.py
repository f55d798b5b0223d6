"""C of World Models: a linear controller on a world's feature, small enough to be evolved.

Paper: a = W [z, h] + b. Parameter order of the official code: biases, then weights [in, out] row by row.
867 numbers for car racing, 1,088 for Doom (no bias), 1,443 for the ablation with 40 hidden units on z.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from oneiro.behaviour import Behaviour
from oneiro.errors import OneiroError
from oneiro.spaces import Spaces
from oneiro.types import Decision, State
from oneiro.world import WorldModel


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """A linear controller, or one with a single hidden layer."""

    hidden_dim: int = 0  # tanh units between feature and action; 0 = linear
    has_bias: bool = False  # Doom: without, car racing: with
    squash: Literal["tanh", "car"] = "tanh"  # car: steer tanh, gas (tanh + 1) / 2, brake max(tanh, 0)

    def build(self, spaces: Spaces, feature_dim: int) -> "Linear":
        """The behaviour for an action space and a world's feature."""
        return Linear(self, spaces, feature_dim)


class Linear(Behaviour):
    """Deterministic; starts at zero, the mean at which CMA-ES starts."""

    def __init__(self, config: LinearConfig, spaces: Spaces, feature_dim: int) -> None:
        super().__init__()
        if config.squash == "car" and spaces.action.dim != 3:
            raise OneiroError(f"squash 'car' is for (steer, gas, brake); this action has {spaces.action.dim}")
        self.config, self.codec = config, spaces.action
        dims = [feature_dim, *([config.hidden_dim] if config.hidden_dim else []), spaces.action.dim]
        has_bias = config.has_bias or config.hidden_dim > 0
        self.layers = nn.ModuleList(Dense(a, b, has_bias) for a, b in pairwise(dims))

    def act(
        self,
        world: WorldModel,
        state: State,
        memory: State,
        *,
        goal: Tensor | None = None,
        explore: bool = False,
    ) -> Decision:
        """Squashed action [B, A]; for a discrete space the scores, whose arg-max acts."""
        x = self.view(world, state)
        *hidden, last = self.layers
        for layer in hidden:
            x = torch.tanh(layer(x))
        raw = last(x)
        if self.codec.is_discrete:
            return Decision(self.codec.best(raw), memory)
        return Decision(squash_car(raw) if self.config.squash == "car" else torch.tanh(raw), memory)


class Dense(nn.Module):
    """y = x W + b with W [in, out], in the official parameter order: b before W."""

    def __init__(self, in_dim: int, out_dim: int, has_bias: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(out_dim)) if has_bias else None
        self.weight = nn.Parameter(torch.zeros(in_dim, out_dim))

    def forward(self, x: Tensor) -> Tensor:
        """[.., in] -> [.., out]."""
        # vecdot: four times as fast as a product with one column, where a `vmap` gives every row its own.
        one = self.weight.shape[1] == 1
        y = torch.linalg.vecdot(x, self.weight[:, 0])[..., None] if one else x @ self.weight
        return y if self.bias is None else y + self.bias


def squash_car(raw: Tensor) -> Tensor:
    """[.., 3] -> steer in -1..1, gas and brake in 0..1 (code: the brake is cut off at 0, not shifted)."""
    steer, gas, brake = torch.tanh(raw).unbind(-1)
    return torch.stack([steer, (gas + 1) / 2, brake.clamp(0, 1)], -1)
