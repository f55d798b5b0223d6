"""The stage `Evolve` in the environment: a stop at any moment changes no number."""

import copy
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from oneiro.training.cma_es import CMA
from oneiro.training.evolve import Evolve
from oneiro.training.progress import Progress
from oneiro.training.recipe import build_agent
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

    def __init__(self, done=None, carry=None, random=None, stop_at=10**9):
        self.recipe = vmc_dodge()
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
    second = Stub(first.done, first.carry, first.random)
    STAGE.run(second)
    assert whole.ticks == 16
    assert first.lines + second.lines == whole.lines
    assert second.done == whole.done
    assert torch.equal(second.carry["best"], whole.carry["best"])
