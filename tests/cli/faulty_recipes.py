"""Recipes and environments that misbehave."""

from dataclasses import dataclass, replace
from typing import Literal

import gymnasium
import numpy as np

from oneiro.envs.gym import GymConfig
from oneiro.envs.toy import Counter, ToyConfig
from oneiro.targets import load_target
from oneiro.training.recipe import Recipe, tweak


@dataclass(frozen=True, kw_only=True)
class Broken(ToyConfig):
    """A counter that goes wrong at step 2 of every episode whose seed is a multiple of three."""

    fault: str = "nan"

    def env(self) -> gymnasium.Env:
        return BrokenCounter(self.fault)


@dataclass(frozen=True, kw_only=True)
class Outside(Broken):
    fault: str = "outside"


@dataclass(frozen=True, kw_only=True)
class Reward(Broken):
    fault: str = "reward"


class BrokenCounter(Counter):
    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        if self.count == 2 and self.seed % 3 == 0:
            match self.fault:
                case "nan":
                    obs["vector"][1] = np.nan
                case "outside":
                    obs["vector"][0] = 1e9
                case "reward":
                    reward = float("inf")
        return obs, reward, terminated, truncated, info


def _toy() -> Recipe:
    return load_target("tests/recipes/toy.py:vmc_dodge")()


def nan_counter(size: Literal["tiny"] = "tiny") -> Recipe:
    """V-M-C on a game that returns NaN."""
    return replace(_toy(), env=Broken())


def cart_pole(size: Literal["tiny"] = "tiny") -> Recipe:
    """V-M-C where there is no picture."""
    return replace(_toy(), env=GymConfig(id="CartPole-v1", workers="sync"))


def large_picture(size: Literal["tiny"] = "tiny") -> Recipe:
    """V-M-C with a picture of another size."""
    return tweak(cart_pole(), {"env.pixels": "only", "env.size": 32})


def unsized() -> Recipe:
    """A recipe without sizes."""
    return _toy()


def not_a_recipe(size: Literal["tiny"] = "tiny") -> int:
    """Returns something else."""
    return 3
