"""CarRacing: drive around a random track seen from above. Scored in Gymnasium; EnvPool is a faster copy.

Task of World Models (Ha & Schmidhuber 2018). Extras: `car` (Gymnasium with Box2D), `envpool`.
"""

import importlib.util
import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import gymnasium
import numpy as np

from oneiro.envs.config import EnvConfig, check_image
from oneiro.envs.image import shrink
from oneiro.errors import MissingExtra

if TYPE_CHECKING:
    from oneiro.spaces import Spaces

SCREEN = 96  # pixels along a side
LOW, HIGH = np.array([-1.0, 0.0, 0.0], np.float32), np.ones(3, np.float32)


@dataclass(frozen=True, kw_only=True)
class CarRacingConfig(EnvConfig):
    """CarRacing-v3 as in World Models.

    Protocol: action (steer -1..1, gas 0..1, brake 0..1) every frame, picture of 96x96 without the instruments
    below row 83, resized to 64x64 RGB; reward -0.1 a frame, +1000/N for each of N tiles, -100 for leaving the
    field; terminated by that or by 95 % of the tiles, truncated after 1,000 frames; score = sum of rewards over
    100 random tracks, "solved" = 900. The published 906 is on CarRacing-v0, whose lap ended only with every
    tile visited; its pictures also had their contrast stretched frame by frame, which is not done here.

    EnvPool draws the same track for the same seed, but its physics departs after some hundred frames and its
    pictures are not anti-aliased: use it for training, and report scores of Gymnasium.
    """

    engine: Literal["auto", "gymnasium", "envpool"] = "auto"  # auto: EnvPool where it is installed
    full_episode: bool = False  # go on after the game is over, with rewards of 0 (paper: random drives)
    max_steps: int = 1000  # frames after which an episode is truncated
    rows: tuple[int, int] = (0, 84)  # (first, last + 1) row of the screen that is kept
    size: int = 64  # side of the resized picture, pixels

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine not in ("auto", "gymnasium", "envpool"):
            raise ValueError(f"engine must be auto, gymnasium or envpool, got {self.engine!r}")
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")
        if self.full_episode and self.engine == "envpool":
            raise ValueError("full_episode needs engine gymnasium: EnvPool starts a new track at the end")
        check_image(self.size, self.rows, SCREEN)

    packages: ClassVar = {"gymnasium": ("Box2D", "car"), "envpool": ("envpool", "envpool")}

    @property
    def chosen(self) -> str:
        """The engine that `auto` stands for here."""
        if self.engine != "auto":
            return self.engine
        if self.full_episode:
            return "gymnasium"
        return "envpool" if importlib.util.find_spec("envpool") else "gymnasium"

    @property
    def longest(self) -> int:
        """See `EnvConfig.longest`."""
        return self.max_steps

    def require(self) -> None:
        """See `EnvConfig.require`."""
        package, extra = self.packages[self.chosen]
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, extra)

    def env(self) -> gymnasium.Env:
        """See `EnvConfig.env`."""
        if self.chosen == "envpool":
            from oneiro.envs.envpool import NEVER, Pooled

            return CarRacing(self, Pooled("CarRacing-v3", max_episode_steps=NEVER))
        return CarRacing(self, _gymnasium_car())

    def spaces(self) -> "Spaces":
        """Known without the engine."""
        from oneiro.spaces import ActionCodec, Spaces

        codec = ActionCodec(3, tuple(LOW.tolist()), tuple(HIGH.tolist()))
        return Spaces({"image": (3, self.size, self.size)}, codec)

    def describe(self) -> str:
        """See `EnvConfig.describe`."""
        end = "never ends before" if self.full_episode else "at most"
        return (
            f"CarRacing-v3 ({self.chosen}), every frame, rows {self.rows[0]}-{self.rows[1] - 1} to {self.size}x"
            f"{self.size}, {end} {self.max_steps:,} frames, score = sum of rewards"
        )


class CarRacing(gymnasium.Env):
    """Crop, resize and cap around an engine whose own time limit is off."""

    def __init__(self, config: CarRacingConfig, engine: gymnasium.Env) -> None:
        self.config, self.engine = config, engine
        self.observation_space = gymnasium.spaces.Dict(
            {"image": gymnasium.spaces.Box(0, 255, (3, config.size, config.size), np.uint8)}
        )
        self.action_space = gymnasium.spaces.Box(LOW, HIGH, dtype=np.float32)
        self._steps, self._is_over = 0, False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A new track; the same for the same seed."""
        obs, _ = self.engine.reset(seed=seed)
        self._steps, self._is_over = 0, False
        return self._show(obs), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One frame."""
        obs, reward, terminated, _, _ = self.engine.step(np.clip(action, LOW, HIGH))
        self._steps += 1
        reward = 0.0 if self._is_over else float(reward)
        self._is_over |= bool(terminated)
        ends = self._is_over and not self.config.full_episode
        return self._show(obs), reward, ends, not ends and self._steps >= self.config.max_steps, {}

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def _show(self, obs: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": shrink(obs, self.config.size, self.config.rows)}


def _gymnasium_car() -> gymnasium.Env:
    """Without wrappers: no time limit, no checker, no order enforcing."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Box2D's import warns; where warnings are errors, it crashes the process
        return gymnasium.make("CarRacing-v3", continuous=True, disable_env_checker=True).unwrapped
