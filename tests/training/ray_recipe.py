"""Counters that take their time and tell how far they are, as a recipe in a file of the user's: `ray_recipe.py:slow`.

The folder $COUNTER_MARKS holds a file for each process that plays, with the number of its steps; with a file `fast` in
it the counters stop taking their time.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium
from online_world import tally

from oneiro.envs.toy import Counter, ToyConfig
from oneiro.training.recipe import Recipe, tweak

PAUSE = 0.02  # seconds a step
STEPS = 5_000
MARKS = "COUNTER_MARKS"


class SlowCounter(Counter):
    """See above."""

    played = 0

    def step(self, action: Any) -> Any:
        marks = Path(os.environ[MARKS])
        SlowCounter.played += 1
        if SlowCounter.played % 20 == 0:
            (marks / f"{os.getpid()}").write_text(f"{SlowCounter.played}")
        if not (marks / "fast").exists():
            time.sleep(PAUSE)
        return super().step(action)


@dataclass(frozen=True, kw_only=True)
class SlowConfig(ToyConfig):
    """See `SlowCounter`."""

    def env(self) -> gymnasium.Env:
        return SlowCounter()


def slow(size: Literal["tiny"] = "tiny") -> Recipe:
    """Four counters."""
    recipe = tweak(tally(), {"env": SlowConfig(id="counter", num=4), "checkpoint.minutes": 5.0})
    return tweak(recipe, {"schedule.online.steps": STEPS, "schedule.online.train_ratio": 0.5})
