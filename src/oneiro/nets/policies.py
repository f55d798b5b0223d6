"""Distributions of actions, and the network that gives one from a feature.

    Discrete, MultiDiscrete   one-hot groups, categorical each; log-prob and entropy summed over the groups
    Box                       a normal of bounded mean and spread in -1..1, one per dimension, summed over them

Source: danijar/dreamerv3; Hafner et al. 2025, and 2023 for layer norms.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from oneiro.nets.layer_norm import NormMLP, Output
from oneiro.nets.layers import MLP, Linear
from oneiro.nets.onehot import pick
from oneiro.spaces import ActionCodec

_LOG_2PI = math.log(2 * math.pi)

Norm = Literal["rms", "layer"]
"""Hidden layers and outputs of today's code (RMS norm), or of 2023's (layer norm, other initial weights)."""
MLPS: dict[Norm, type[MLP] | type[NormMLP]] = {"rms": MLP, "layer": NormMLP}
OUTPUTS: dict[Norm, type[Linear] | type[Output]] = {"rms": Linear, "layer": Output}


@dataclass(frozen=True)
class OneHots:
    """Categorical choices, one in each group; an action is [.., sum of groups], one one-hot after the other."""

    log_probs: Tensor
    """[.., sum of groups], normalised within each group."""
    groups: tuple[int, ...]

    @classmethod
    def of(cls, logits: Tensor, groups: tuple[int, ...], unimix: float = 0.0) -> "OneHots":
        """From logits [.., sum of groups]; `unimix` is the share of the uniform distribution in each group."""
        parts = [part.log_softmax(-1) for part in logits.float().split(groups, -1)]
        if unimix:
            parts = [torch.log((1 - unimix) * part.exp() + unimix / part.shape[-1]) for part in parts]
        return cls(parts[0] if len(parts) == 1 else torch.cat(parts, -1), groups)

    def mode(self) -> Tensor:
        """The likeliest of each group."""
        return torch.cat([_hot(part.argmax(-1), part) for part in self._parts()], -1)

    def sample(self, uniform: Tensor) -> Tensor:
        """A sample by uniform numbers [.., groups] in [0, 1), without a graph."""
        drawn = [
            pick(part.detach().exp()[..., None, :], uniform[..., g : g + 1])[..., 0, :]
            for g, part in enumerate(self._parts())
        ]
        return drawn[0] if len(drawn) == 1 else torch.cat(drawn, -1)

    def log_prob(self, action: Tensor) -> Tensor:
        """[..] nats, for one-hots [.., sum of groups]."""
        return (self.log_probs * action).sum(-1)

    def entropy(self) -> Tensor:
        """[..] nats."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def _parts(self) -> tuple[Tensor, ...]:
        return self.log_probs.split(self.groups, -1)


@dataclass(frozen=True)
class BoundedNormal:
    """Independent normals of mean in -1..1; samples may lie outside, whoever acts cuts them (see `within`)."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, mean: Tensor, std: Tensor, smallest: float, largest: float) -> "BoundedNormal":
        """From raw outputs [.., A]: tanh(mean), and smallest + (largest - smallest) sigmoid(std + 2)."""
        return cls(torch.tanh(mean.float()), (largest - smallest) * torch.sigmoid(std.float() + 2) + smallest)

    def mode(self) -> Tensor:
        """The mean."""
        return self.mean

    def sample(self, normal: Tensor) -> Tensor:
        """A sample by standard normal numbers [.., A], on the graph of mean and spread."""
        return self.mean + self.std * normal

    def log_prob(self, action: Tensor) -> Tensor:
        """[..] nats, for a sample as it was before it was cut."""
        each = -0.5 * ((action - self.mean) / self.std).square() - self.std.log() - 0.5 * _LOG_2PI
        return each.sum(-1)

    def entropy(self) -> Tensor:
        """[..] nats."""
        return (self.std.log() + 0.5 * (_LOG_2PI + 1)).sum(-1)


Policy = OneHots | BoundedNormal


def within(raw: Tensor) -> Tensor:
    """Cut to -1..1, keeping a gradient where it is cut (the divisor carries none)."""
    return raw / raw.detach().abs().clamp(min=1)


class Actor(nn.Module):
    """Feature [.., in_dim] -> a `Policy`: a torso of (linear, norm, SiLU) and one output (Box: two)."""

    def __init__(
        self,
        in_dim: int,
        units: int,
        layers: int,
        codec: ActionCodec,
        *,
        norm: Norm = "rms",
        scale: float = 0.01,
        unimix: float = 0.0,
        std: tuple[float, float] = (0.1, 1.0),
    ) -> None:
        super().__init__()
        self.codec, self.unimix, self.bounds = codec, unimix, std
        self.torso = MLPS[norm](in_dim, units, layers)
        outputs = ("logits",) if codec.is_discrete else ("mean", "std")
        self.outputs = nn.ModuleDict({name: OUTPUTS[norm](units, codec.dim, scale=scale) for name in outputs})

    def forward(self, feature: Tensor) -> Policy:
        """Computes in the dtype of `feature`; the distribution is float32."""
        x = self.torso(feature)
        if self.codec.is_discrete:
            return OneHots.of(self.outputs["logits"](x), self.codec.groups, self.unimix)
        return BoundedNormal.of(self.outputs["mean"](x), self.outputs["std"](x), *self.bounds)


def _hot(index: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter_(-1, index[..., None], 1.0)
