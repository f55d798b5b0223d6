"""Random policies that collect the first experience. They see nothing, so no frame is encoded for them.

All randomness comes from the episode's `key` and a step counter in the memory (`oneiro.noise`).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from oneiro import noise
from oneiro.behaviour import Behaviour
from oneiro.behaviours.linear import squash_car
from oneiro.runtime import wide_device
from oneiro.spaces import Spaces
from oneiro.types import Decision, State
from oneiro.world import WorldModel

EPISODE = 0  # counter of what is drawn once an episode; step t draws with counter t + 1


@dataclass(frozen=True, kw_only=True)
class HeldRandom:
    """A uniform action held for 1..k decisions, k of `hold`; redrawn together with its duration.

    hold=(1,) is the i.i.d. random policy; (10,) collects World Models' Doom episodes. With several k, one is
    drawn for each episode, in proportion to `weight`.
    """

    hold: tuple[int, ...] = (10,)  # k: an action lasts 1 to k decisions
    weight: tuple[float, ...] = ()  # of each k, any positive numbers; () = equal

    def __post_init__(self) -> None:
        if not self.hold or min(self.hold) < 1:
            raise ValueError(f"hold needs durations of at least 1 decision, got {self.hold}")
        if self.weight and (len(self.weight) != len(self.hold) or min(self.weight) <= 0):
            raise ValueError(
                f"weight needs one positive number for each of hold {self.hold}, got {self.weight}"
            )

    def build(self, spaces: Spaces, feature_dim: int = 0) -> "HeldRandomPolicy":
        """The policy for an action space; it sees nothing, so `feature_dim` does not matter."""
        return HeldRandomPolicy(self, spaces)


class HeldRandomPolicy(Behaviour):
    """See `HeldRandom`."""

    sees: Literal["feature", "image", "nothing"] = "nothing"
    low: Tensor
    span: Tensor
    hold: Tensor
    edges: Tensor

    def __init__(self, config: HeldRandom, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.codec = config, spaces.action
        weight = torch.tensor(config.weight or (1.0,) * len(config.hold))
        for name, value in (
            ("low", torch.tensor(self.codec.low)),
            ("span", torch.tensor(self.codec.high) - torch.tensor(self.codec.low)),
            ("hold", torch.tensor(config.hold)),
            ("edges", (weight / weight.sum()).cumsum(0)[:-1]),
        ):
            self.register_buffer(name, value, persistent=False)

    def memory(self, n: int) -> State:
        """Key, decisions made, the episode's k, decisions for which the action is still held, that action."""
        zero = self.hold.new_zeros(n)
        return {
            "key": torch.arange(n, device=zero.device),
            "t": zero,
            "limit": zero.clone(),
            "left": zero.clone(),
            "action": self.edges.new_zeros(n, self.codec.dim),
        }

    def act(
        self,
        world: WorldModel,
        state: State,
        memory: State,
        *,
        goal: Tensor | None = None,
        explore: bool = False,
    ) -> Decision:
        """The held action, or a new one; the same for the same key, whether exploring or not."""
        key, t, limit, left, action = (memory[name] for name in ("key", "t", "limit", "left", "action"))
        if (t == 0).any():
            mode = torch.bucketize(noise.uniform(key, EPISODE, 1)[:, 0], self.edges, right=True)
            limit = torch.where(t == 0, self.hold[mode], limit)
        is_new = left == 0
        if is_new.any():  # nothing is drawn for steps that only hold
            drawn = noise.uniform(key, t + 1, 1 + self.codec.dim)
            left = torch.where(is_new, 1 + (drawn[:, 0] * limit).long(), left)
            action = torch.where(is_new[:, None], self._uniform(drawn[:, 1:]), action)
        return Decision(action, {"key": key, "t": t + 1, "limit": limit, "left": left - 1, "action": action})

    def _uniform(self, u: Tensor) -> Tensor:
        """Uniform numbers [B, A] -> a uniform point of the Box, or uniform one-hots."""
        if self.codec.is_discrete:
            sizes = u.new_tensor(self.codec.groups)
            return self.codec.one_hot((u[:, : len(sizes)] * sizes).long())
        return self.low + self.span * u


@dataclass(frozen=True, kw_only=True)
class RandomLinear:
    """The driver of World Models' car episodes: a = squash(W z + b), z ~ N(0, I) at each step.

    The released code collects with a random V, M and C, but its V and M are in effect zero: what remains is this.
    W and b are standard Cauchy times s, s ~ U(0, scale), drawn once an episode.
    """

    z_dim: int = 32  # size of the noise that stands for V's latent
    scale: float = 0.01  # largest s
    squash: Literal["car", "tanh"] = "car"  # car: steer, gas, brake; tanh: scaled to the bounds of the Box

    def __post_init__(self) -> None:
        if self.z_dim < 1 or self.scale <= 0:
            raise ValueError(f"z_dim and scale must be positive, got {self.z_dim} and {self.scale}")

    def build(self, spaces: Spaces) -> "RandomLinearPolicy":
        """The policy for an action space."""
        return RandomLinearPolicy(self, spaces)


class RandomLinearPolicy(Behaviour):
    """See `RandomLinear`."""

    sees: Literal["feature", "image", "nothing"] = "nothing"
    low: Tensor
    high: Tensor

    def __init__(self, config: RandomLinear, spaces: Spaces) -> None:
        super().__init__()
        codec = spaces.action
        if codec.is_discrete or (config.squash == "car" and codec.dim != 3):
            raise ValueError(
                f"RandomLinear with squash {config.squash!r} cannot drive an action of {codec.dim} "
                f"{'choices' if codec.is_discrete else 'numbers'}; use HeldRandom"
            )
        self.config, self.action_dim = config, codec.dim
        self.register_buffer("low", torch.tensor(codec.low), persistent=False)
        self.register_buffer("high", torch.tensor(codec.high), persistent=False)

    def memory(self, n: int) -> State:
        """Key and decisions made."""
        key = torch.arange(n, device=self.low.device)
        return {"key": key, "t": torch.zeros_like(key)}

    def act(
        self,
        world: WorldModel,
        state: State,
        memory: State,
        *,
        goal: Tensor | None = None,
        explore: bool = False,
    ) -> Decision:
        """[B, A]; the same for the same key and step, whether exploring or not."""
        key, t = memory["key"], memory["t"]
        bias, weight = self.weights(key)
        z = noise.normal(key, t + 1, self.config.z_dim)
        raw = bias + torch.einsum("bz,bza->ba", z, weight)
        if self.config.squash == "car":
            action = squash_car(raw)
        else:
            action = self.low + (torch.tanh(raw) + 1) / 2 * (self.high - self.low)
        return Decision(action, {"key": key, "t": t + 1})

    def weights(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """Bias [B, A] and W [B, Z, A] of each episode."""
        a, z = self.action_dim, self.config.z_dim
        drawn = noise.uniform(key, EPISODE, 1 + a + z * a)
        wide = drawn[:, 1:].to(wide_device(key.device), torch.float64)
        cauchy = torch.tan(math.pi * (wide - 0.5)).to(drawn)
        scaled = cauchy * drawn[:, :1] * self.config.scale
        return scaled[:, :a], scaled[:, a:].reshape(-1, z, a)
