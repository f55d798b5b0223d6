"""Recipes of which run folders are written for tests, never trained."""

from dataclasses import dataclass, field
from typing import Literal

from oneiro.behaviours.linear import LinearConfig
from oneiro.envs.atari import AtariConfig
from oneiro.envs.toy import ToyConfig
from oneiro.evaluation.stage import Evaluate
from oneiro.training.recipe import Recipe
from oneiro.training.schedule import Stage
from oneiro.worlds.vmc import VMCConfig


@dataclass(frozen=True, kw_only=True)
class Practice(Stage):
    steps: int = 100_000

    def run(self, run) -> None:
        raise AssertionError("these recipes are not trained")

    def line(self) -> str:
        return "practise"

    def total(self) -> int:
        return self.steps


@dataclass(frozen=True, kw_only=True)
class Schedule:
    online: Practice = Practice()
    evaluate: Evaluate = field(default_factory=Evaluate)


def atari(size: Literal["small", "large"] = "small") -> Recipe:
    """Atari 100k."""
    world = VMCConfig(z_dim=8 if size == "small" else 16)
    return Recipe(env=AtariConfig(game="pong"), world=world, behaviour=LinearConfig(), schedule=Schedule())


def toy(size: Literal["tiny"] = "tiny") -> Recipe:
    """A game nobody has published scores of."""
    schedule = Schedule(online=Practice(steps=1_000))
    return Recipe(env=ToyConfig(id="dodge"), world=VMCConfig(), behaviour=LinearConfig(), schedule=schedule)
