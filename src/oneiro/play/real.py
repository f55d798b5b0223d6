"""`RealGame`: the real environment beside a dream, driven by the same actions, in a process of its own."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from oneiro.envs.config import EnvConfig
from oneiro.envs.vector import VectorEnv
from oneiro.errors import OneiroError
from oneiro.play.pictures import observed
from oneiro.spaces import Spaces


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the real game showed after an action."""

    picture: np.ndarray
    """uint8 [H, W, 3]."""
    reward: float
    score: float
    steps: int
    over: bool


class RealGame:
    """One episode after another. A step after the end begins the next; a crash ends the episode."""

    def __init__(self, config: EnvConfig, spaces: Spaces, seed: int = 0) -> None:
        self.spaces, self._seed = spaces, seed
        alone = dataclasses.replace(config, num=1, processes=1, workers="async")
        self.env = VectorEnv(alone, 1)
        self._score, self._steps, self._over = 0.0, 0, True

    def begin(self) -> Shown:
        """A new episode."""
        self._seed += 1
        obs = self.env.reset_rows(np.ones(1, bool), np.array([self._seed]))
        self._score, self._steps, self._over = 0.0, 0, False
        return self._show(obs, 0.0)

    def step(self, told: tuple[float, ...]) -> Shown:
        """One step by an action as the environment takes it."""
        if self._over:
            return self.begin()
        space = self.env.action_space
        obs, reward, terminated, truncated, _ = self.env.step(
            np.array(told, np.float64).astype(space.dtype).reshape(space.shape or (1,))
        )
        self._score += float(reward[0])
        self._steps += 1
        self._over = bool(terminated[0] or truncated[0])
        return self._show(obs, float(reward[0]))

    def close(self) -> None:
        """End the process."""
        self.env.close()

    def _show(self, obs: dict[str, np.ndarray], reward: float) -> Shown:
        picture = observed({name: x[0] for name, x in obs.items()}, self.spaces)
        if picture is None:
            raise OneiroError("the real game shows no pictures")
        return Shown(picture=picture, reward=reward, score=self._score, steps=self._steps, over=self._over)
