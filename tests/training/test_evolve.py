"""The stage `Evolve` in the environment: a stop at any moment changes no number."""

import copy
import dataclasses
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import pytest
import torch

from oneiro.envs.toy import ToyConfig
from oneiro.training.cma_es import CMA
from oneiro.training.evolve import Evolve
from oneiro.training.progress import Progress
from oneiro.training.recipe import build_agent, tweak
from oneiro.training.run import Stopped
from oneiro.training.state import random_state, set_random_state

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))
from toy import vmc_dodge

STAGE = Evolve(
    where="env",
    cma=CMA(population=4),
    generations=2,
    episodes=1,
    test_every=1,
    test_episodes=3,
    result="best",
)


class Stub:
    """As much of a `Run` as the stage needs; asks to stop at a tick."""

    before_save = None

    def __init__(self, values=None, done=None, carry=None, random=None, stop_at=10**9):
        self.recipe = tweak(vmc_dodge(), values or {})
        self.device, self.stage_seed, self.stop_at = torch.device("cpu"), 7, stop_at
        torch.manual_seed(0)
        self.agent = build_agent(self.recipe, self.recipe.env.spaces())
        self.done, self.carry = copy.deepcopy(done or {}), copy.deepcopy(carry or {})
        if random:
            set_random_state(random)
        self.progress, self.lines, self.ticks = Progress("", "cpu", quiet=True), [], 0

    @contextmanager
    def env(self):
        env = self.recipe.env.make()
        yield env
        env.close()

    def record(self, step, metrics, timing):
        self.lines.append((step, metrics))
        return {}

    def tick(self, save=True):
        self.ticks += 1
        if self.ticks == self.stop_at:
            if self.before_save:
                self.before_save()
            self.random = random_state()
            raise Stopped


@dataclass(frozen=True, kw_only=True)
class Mortal(ToyConfig):
    """A toy whose process dies once, at the first step after the file was made."""

    fuse: str = ""

    def env(self):
        return Dying(super().env(), Path(self.fuse))


class Dying(gymnasium.Wrapper):
    def __init__(self, env, fuse):
        super().__init__(env)
        self.fuse = fuse

    def step(self, action):
        if self.fuse.exists():
            self.fuse.unlink()
            os._exit(3)
        return self.env.step(action)


def test_a_crashed_episode_is_played_again(tmp_path):
    """It has no score: counted as one, a cut-off episode would be held against the candidate."""
    fuse, lines = tmp_path / "fuse", []
    for is_lit in (False, True):
        run = Stub({"world.seeing": "mean"})  # a score is then a function of the episode alone
        env = run.recipe.env
        mortal = Mortal(id=env.id, num=env.num, workers="async", processes=1, fuse=str(fuse))
        run.recipe = dataclasses.replace(run.recipe, env=mortal)
        if is_lit:
            fuse.touch()
        STAGE.run(run)
        assert not fuse.exists()
        lines.append(run.lines)
    crashed = [[metrics.pop("evolve/crashed") for _, metrics in each] for each in lines]
    assert crashed == [[0.0, 0.0], [2.0, 0.0]]  # both slots are of one process
    assert lines[0] == lines[1]


@pytest.fixture(scope="module")
def whole():
    run = Stub()
    STAGE.run(run)
    return run


@pytest.mark.parametrize("stop_at", [2, 6, 8, 11, 15])  # each generation: 4 rollouts, 3 tests, and its end
def test_a_stopped_evolution_has_the_numbers_of_an_uninterrupted_one(whole, stop_at):
    first = Stub(stop_at=stop_at)
    with pytest.raises(Stopped):
        STAGE.run(first)
    assert len(first.done.get("history", [])) == stop_at // 8
    second = Stub(done=first.done, carry=first.carry, random=first.random)
    STAGE.run(second)
    assert whole.ticks == 16
    assert first.lines + second.lines == whole.lines
    assert second.done == whole.done
    assert torch.equal(second.carry["best"], whole.carry["best"])
