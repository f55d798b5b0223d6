"""How long episodes last, from some seconds of play: those that have not ended count too."""

from dataclasses import dataclass, replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from oneiro.behaviours.explore import HeldRandom
from oneiro.envs.config import EnvConfig
from oneiro.envs.toy import Pixels, ToyConfig
from oneiro.evaluation.stage import Evaluate, Rival
from oneiro.recipes import find
from oneiro.training import played
from oneiro.training.estimate import _Replay
from oneiro.training.evolve import Evolve
from oneiro.training.plan import Duration, Plan, StagePlan
from oneiro.training.played import Players, length
from oneiro.training.run import build_agent
from oneiro.training.schedule import Collect, Episodes
from recipes.toy import vmc_dodge


def test_unfinished_episodes_lengthen_the_estimate():
    assert length(1000, 10, 0) == 100
    assert length(1000, 0, 400) == 400  # none ended: the limit
    assert length(1000, 0, 0) is None
    assert length(1e6, 1, 400) == pytest.approx(400, rel=1e-3)
    chances = 0.99 ** np.arange(400)  # of living so long
    assert length(1000, 10, 400) == pytest.approx(chances.sum())


@dataclass(frozen=True, kw_only=True)
class Mixed(EnvConfig):
    """Half of the episodes last 2 steps, the others 1,000."""

    workers: Any = "sync"
    limit: int = 1000

    @property
    def longest(self) -> int:
        return self.limit

    def env(self):
        return MixedEnv()

    def describe(self):
        return "mixed"


class MixedEnv(Pixels):
    def __init__(self):
        self.observation_space = Dict({"image": Box(0, 255, (3, 64, 64), np.uint8)})
        self.action_space = Discrete(2)

    def begin(self):
        self.length = int(self.np_random.choice([2, 1000]))

    def paint(self, cells):
        cells[0] = self.steps % 256

    def step(self, action):
        self.steps += 1
        is_over = self.steps == self.length
        return self.show(), 0.0, is_over and self.length == 2, is_over and self.length == 1000, {}


def test_the_shortest_episodes_do_not_decide(monkeypatch):
    clock = count()
    monkeypatch.setattr(
        played, "time", SimpleNamespace(perf_counter=lambda: next(clock) * played._PATIENCE / 200)
    )
    recipe = replace(vmc_dodge(), env=Mixed(num=16))
    agent = build_agent(recipe, recipe.env.spaces()).eval()
    blind = Episodes(count=1, policy=HeldRandom(hold=(1,)))
    with Players(recipe, agent, []) as players:
        found = players.of(blind)
        assert players.of(blind) is found  # measured once
        other = players.of(replace(blind, env=ToyConfig(id="catch", num=2)))
    assert found.steps > 100  # those that have ended after 200 turns took 2
    assert 14 <= other.steps < 15


def test_stages_say_who_plays_where():
    policy, there = HeldRandom(hold=(1,)), ToyConfig(id="catch")
    (collected,) = Collect(episodes=3, policy=policy, env=there).plays(1)
    assert (collected.count, collected.policy, collected.env) == (3, policy, there)
    assert Collect(episodes=3, policy=policy).plays(2)[0].policy is None  # the agent, evolved by now
    evolve = Evolve(where="env", generations=50, episodes=2, test_every=25, test_episodes=7)
    (rollouts,) = evolve.plays(1)
    assert rollouts.count == 50 * evolve.cma.population * 2 + 2 * 7
    assert rollouts.candidates
    assert Evolve().plays(1) == []
    rival = Rival(name="random", policy=policy)
    stage = Evaluate(episodes=5, rivals=(rival, replace(rival, env=ToyConfig())), env=there)
    assert [each.env for each in stage.plays(1)] == [there, there, ToyConfig()]
    assert [each.policy for each in replace(stage, with_rivals=False).plays(1)] == [None]


def test_what_was_not_measured_is_a_question_mark():
    recipe = vmc_dodge()
    replay = _Replay.of(recipe, None)
    assert (replay.rows, replay.gib) == (None, None)
    stage = StagePlan.of("collect", "play", None)
    facts = {"device": "CPU", "parameters": {"world": 1}, "ram_gib": 1.0, "gpu_gib": 0.0}
    plan = Plan(schedule=[stage], rows=replay.rows, replay_gib=replay.gib, **facts)
    assert "replay: ? rows, ? GiB" in str(plan)
    assert "time:" not in str(plan)


def test_time_is_an_estimate_and_says_what_it_depends_on():
    facts = {"device": "CPU", "parameters": {"world": 1}, "ram_gib": 1.0, "gpu_gib": 0.0}
    total = Duration.of(60.0) + Duration(about=30.0, most=600.0)
    plan = Plan(schedule=[StagePlan.of("a", "a", total)], rows=0, replay_gib=0.0, **facts)
    assert "time: about 90 s; 11 min if every episode lasted to the environment's limit" in str(plan)
    endless = total + Duration(about=1.0, most=None)
    assert endless.most is None


def test_epochs_know_their_rows_without_playing():
    recipe = find("diamond-atari").build("smoke")
    replay = _Replay.of(recipe, None)
    assert replay.rows == recipe.schedule.epochs.collected
    assert replay.gib is None
