"""Stable-Baselines3 lives in the dream: its interface is kept, and what it learns there pays in the real game."""

import builtins
import importlib
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from oneiro.agent import Agent
from oneiro.behaviours.outside import OutsidePolicy
from oneiro.envs import make
from oneiro.envs.dream import DreamEnv
from oneiro.envs.sb3 import SB3VecEnv
from oneiro.envs.toy import ToyConfig
from oneiro.errors import MissingExtra
from oneiro.evaluation.episodes import evaluate
from oneiro.testing import CatchOracle, DodgeOracle
from oneiro.types import Carry


def catch(n: int, **options: Any) -> DreamEnv:
    world = CatchOracle()
    starts = Carry(state={**world.start(16), "ball": torch.arange(16)})
    options = {"sees": "feature", "autoreset_mode": AutoresetMode.SAME_STEP} | options
    return DreamEnv(world, starts, n, 20, **options)


def test_ppo_that_only_dreamed_wins_the_real_game() -> None:
    env = catch(32)
    vec = SB3VecEnv(env)
    vec.seed(0)
    options = {"n_steps": 64, "batch_size": 256, "learning_rate": 2e-3, "gamma": 0.95, "device": "cpu"}
    model = PPO("MlpPolicy", vec, seed=0, **options)
    agent = Agent(env.world, OutsidePolicy(model.predict))
    game = make(ToyConfig(id="catch"), 8)
    before = evaluate(game, agent, episodes=50, seed=1).summary.mean
    model.learn(16_000)
    after = evaluate(game, agent, episodes=50, seed=1).summary.mean
    game.close()
    assert before < 0.3
    assert after > 0.8  # random play scores about -0.7, the best possible is 1


def test_the_adapter_says_what_sb3s_own_does() -> None:
    """The same game through SB3's DummyVecEnv and through Gymnasium's vector environment and the adapter."""

    def game() -> gymnasium.Env:
        return gymnasium.wrappers.TimeLimit(gymnasium.make("CartPole-v1").unwrapped, 25)

    theirs = DummyVecEnv([game] * 3)
    ours = SB3VecEnv(SyncVectorEnv([game] * 3, autoreset_mode=AutoresetMode.SAME_STEP))
    for vec in (theirs, ours):
        vec.seed(5)
    assert np.array_equal(theirs.reset(), ours.reset())
    random = np.random.default_rng(0)
    seen = set()
    for _ in range(120):
        actions = random.integers(2, size=3)
        a, b = theirs.step(actions), ours.step(actions)
        for x, y in zip(a[:3], b[:3], strict=True):
            assert np.array_equal(x, y)
            assert x.dtype == y.dtype
        for x, y in zip(a[3], b[3], strict=True):
            assert x.keys() == y.keys()
            assert x["TimeLimit.truncated"] == y["TimeLimit.truncated"]
            seen.add(x["TimeLimit.truncated"])
            if "terminal_observation" in x:
                assert np.array_equal(x["terminal_observation"], y["terminal_observation"])
    assert seen == {False, True}


def test_seeds_attributes_and_pictures() -> None:
    vec = SB3VecEnv(catch(3, render_mode="rgb_array", sees="image"))
    vec.seed(4)
    first = vec.reset()
    vec.seed(4)
    assert np.array_equal(vec.reset(), first)
    assert vec.render_mode == "rgb_array"
    assert vec.render().shape[-1] == 3
    vec.set_attr("temperature", 0.5)
    assert vec.get_attr("temperature", [0, 2]) == [0.5, 0.5]
    assert vec.env_method("carry")[0].state["ball"].shape == (3,)
    with pytest.raises(ValueError, match="some rows only"):
        vec.set_attr("temperature", 1.0, [1])
    assert vec.env_is_wrapped(gymnasium.wrappers.TimeLimit) == [False] * 3
    vec.close()


def test_pictures_and_boxes_suit_ppo() -> None:
    world = DodgeOracle()
    env = DreamEnv(world, Carry(state=world.start(2)), 2, 10, autoreset_mode="SameStep")
    vec = VecMonitor(SB3VecEnv(env))
    model = PPO("CnnPolicy", vec, n_steps=16, batch_size=16, n_epochs=1, device="cpu", seed=0)
    model.learn(32)
    assert model.ep_info_buffer
    agent = Agent(world, OutsidePolicy(model.predict, sees="image"))
    action, _ = agent.act(Carry(state=world.start(2)))
    assert (action.shape, action.dtype) == ((2, 1), torch.float32)
    assert action.abs().max() <= 1


def test_other_autoreset_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="SAME_STEP"):
        SB3VecEnv(catch(1, autoreset_mode=AutoresetMode.NEXT_STEP))


def test_without_stable_baselines_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any) -> Any:
        if name.startswith("stable_baselines3"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.delitem(sys.modules, "oneiro.envs.sb3")
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match=r"oneiro\[sb3\]"):
        importlib.import_module("oneiro.envs.sb3")
