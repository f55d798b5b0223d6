"""Crafter: survive in a small world of wood, stone and zombies; 22 achievements (extra `crafter`)."""

import collections
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np

from oneiro.envs.config import EnvConfig


@dataclass(frozen=True, kw_only=True)
class CrafterConfig(EnvConfig):
    """Crafter as published (Hafner 2021), rewards included.

    Protocol: 17 actions, one a step; a new world of 64 x 64 fields each episode; picture of the 9 x 7 fields around
    the player with the inventory below; +1 the first time an achievement is unlocked in an episode, +-0.1 for each
    point of health; terminated by death, truncated after 10,000 steps; score = sum of rewards. (Crafter's own score,
    the geometric mean of the success rates of its achievements, is another figure.)
    """

    size: int = 64  # side of the picture, pixels
    max_steps: int = 10_000  # steps after which an episode is truncated
    reward: bool = True  # False: always 0, for agents without a task

    needs: ClassVar = ("crafter", "crafter")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 9:
            raise ValueError(f"size must be at least 9 pixels, one for each field, got {self.size}")
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")

    @property
    def benchmark(self) -> str:
        """See `EnvConfig.benchmark`."""
        return "crafter/reward" if self.reward and self.max_steps == 10_000 else ""

    @property
    def longest(self) -> int:
        """See `EnvConfig.longest`."""
        return self.max_steps

    def env(self) -> gymnasium.Env:
        """See `EnvConfig.env`."""
        return Crafter(self)

    def describe(self) -> str:
        """See `EnvConfig.describe`."""
        what = "sum of rewards" if self.reward else "0, rewards are off"
        return f"Crafter, {self.size}x{self.size} RGB, at most {self.max_steps:,} steps, score = {what}"


class Crafter(gymnasium.Env):
    """One world. `info` of a step: Crafter's own, with inventory and achievements."""

    def __init__(self, config: CrafterConfig) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import crafter
        self.engine = crafter.Env(
            size=(config.size, config.size), reward=config.reward, length=config.max_steps, seed=0
        )
        _keep_order(self.engine._world)
        self.observation_space = gymnasium.spaces.Dict(
            {"image": gymnasium.spaces.Box(0, 255, (3, config.size, config.size), np.uint8)}
        )
        self.action_space = gymnasium.spaces.Discrete(self.engine.action_space.n)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A new world; the same for the same seed."""
        super().reset(seed=seed)
        # Crafter makes episode k of a seed; here every seed has its first.
        self.engine._seed = int(self.np_random.integers(2**31)) if seed is None else seed
        self.engine._episode = 0
        return self._show(self.engine.reset()), {}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One action."""
        image, reward, done, info = self.engine.step(int(action))
        terminated = info["discount"] == 0
        return self._show(image), float(reward), bool(terminated), bool(done and not terminated), info

    def _show(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": np.ascontiguousarray(image.transpose(2, 0, 1))}


class _Ordered:
    """The part of a set that Crafter uses, in the order of insertion."""

    def __init__(self) -> None:
        self._items: dict[Any, None] = {}

    def add(self, item: Any) -> None:
        self._items[item] = None

    def remove(self, item: Any) -> None:
        del self._items[item]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def _keep_order(world: Any) -> None:
    """Creatures by order of arrival. In Crafter they are in sets, whose order is that of memory addresses, and one
    is drawn from it: the same seed and actions would not always lead to the same world.
    """
    reset = world.reset

    def reset_ordered(seed: int | None = None) -> None:
        reset(seed)
        world._chunks = collections.defaultdict(_Ordered)

    world.reset = reset_ordered
    world._chunks = collections.defaultdict(_Ordered)
