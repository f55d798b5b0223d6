"""Procgen: 16 games whose levels are generated (extra `envpool`, and Qt5 of the system)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import gymnasium
import numpy as np

from oneiro.envs.config import EnvConfig
from oneiro.envs.image import shrink
from oneiro.envs.libraries import is_there, remedy
from oneiro.errors import OneiroError, nearest

if TYPE_CHECKING:
    from oneiro.spaces import Spaces

GAMES = (
    *("bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot"),
    *("heist", "jumper", "leaper", "maze", "miner", "ninja", "plunder", "starpilot"),
)
ACTIONS = 15


@dataclass(frozen=True, kw_only=True)
class ProcgenConfig(EnvConfig):
    """A game of Procgen, as EnvPool brings it.

    Protocol: 15 actions, one a frame; picture 64 x 64 RGB; each episode is one level. With `levels=0` every level
    there is may come (train = test, as in Dreamer); with a number, those from `first_level` on, for tests of
    generalisation. Terminated by the end of a level, or by the game's own limit (1,000 frames in most), which EnvPool
    does not tell apart; score = sum of rewards.
    """

    game: str = "coinrun"  # one of the 16
    mode: Literal["easy", "hard"] = "hard"  # difficulty; published scores are at hard
    levels: int = 0  # how many levels there are; 0 = all
    first_level: int = 0  # number of the first
    size: int = 64  # side of the picture, pixels; drawn at 64
    max_steps: int = 0  # frames after which an episode is truncated; 0 = none but the game's own limit

    needs: ClassVar = ("envpool", "envpool")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.game not in GAMES:
            raise ValueError(f"there is no game {self.game!r} in Procgen. {nearest(self.game, GAMES)}")
        if self.mode not in ("easy", "hard"):
            raise ValueError(f"mode must be easy or hard, got {self.mode!r}")
        for name, least in (("levels", 0), ("first_level", 0), ("size", 1), ("max_steps", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def require(self) -> None:
        """MissingExtra without EnvPool; OneiroError naming the packages of the system it needs."""
        super().require()
        if not is_there("Qt5"):
            raise OneiroError(f"Procgen needs Qt5. Remedy: {remedy(['Qt5'])}")

    def env(self) -> gymnasium.Env:
        """See `EnvConfig.env`."""
        return Procgen(self)

    def spaces(self) -> "Spaces":
        """Known without the engine."""
        from oneiro.spaces import ActionCodec, Spaces

        return Spaces({"image": (3, self.size, self.size)}, ActionCodec(ACTIONS))

    def describe(self) -> str:
        """See `EnvConfig.describe`."""
        levels = f"levels {self.first_level:,} to {self.first_level + self.levels - 1:,}"
        limit = f"at most {self.max_steps:,} frames, " if self.max_steps else ""
        return (
            f"Procgen {self.game} {self.mode}, {levels if self.levels else 'all levels'}, {self.size}x{self.size} "
            f"RGB, {limit}score = sum of rewards"
        )


class Procgen(gymnasium.Env):
    """One game; a level an episode."""

    def __init__(self, config: ProcgenConfig) -> None:
        from oneiro.envs.envpool import Pooled

        self.config = config
        self.engine = Pooled(
            f"{config.game.capitalize()}{config.mode.capitalize()}-v0",
            num_levels=config.levels,
            start_level=config.first_level,
        )
        self._steps = 0
        self.observation_space = gymnasium.spaces.Dict(
            {"image": gymnasium.spaces.Box(0, 255, (3, config.size, config.size), np.uint8)}
        )
        self.action_space = gymnasium.spaces.Discrete(ACTIONS)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A level; the same for the same seed."""
        self._steps = 0
        obs, info = self.engine.reset(seed=seed)
        return self._show(obs), info

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One frame."""
        obs, reward, terminated, truncated, info = self.engine.step(np.int32(action))
        self._steps += 1
        truncated |= 0 < self.config.max_steps <= self._steps
        return self._show(obs), reward, terminated, truncated and not terminated, info

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def _show(self, obs: np.ndarray) -> dict[str, np.ndarray]:
        same = obs.shape[1] == self.config.size
        return {"image": obs if same else shrink(obs.transpose(1, 2, 0), self.config.size)}
