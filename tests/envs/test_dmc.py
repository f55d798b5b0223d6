import os

import numpy as np
import pytest

pytest.importorskip("dm_control")

from oneiro.envs import dmc
from oneiro.envs.dmc import DMCConfig
from oneiro.errors import OneiroError
from oneiro.spaces import Spaces

HAS_GL = any(map(dmc.is_there, dmc.LIBRARIES.values()))
drawn = pytest.mark.skipif(not HAS_GL, reason="no OpenGL library: see docs/environments.md")


@pytest.fixture(autouse=True, scope="module")
def _imported_with_what_is_there():
    DMCConfig(task="pendulum_swingup").env().close()


def play(env, seed, steps=30):
    rng = np.random.default_rng(0)
    obs, _ = env.reset(seed=seed)
    rows = [obs["vector"]]
    for _ in range(steps):
        obs, reward, *_ = env.step(rng.uniform(-1, 1, env.action_space.shape))
        rows.append(np.append(obs["vector"], reward))
    return np.concatenate(rows)


@pytest.mark.parametrize("task", ["walker_walk", "cartpole_swingup", "reacher_easy", "finger_turn_hard"])
def test_an_episode_is_a_function_of_its_seed(task):
    env = DMCConfig(task=task).env()
    first = play(env, 5)
    other = play(env, 6)
    assert not np.array_equal(first, other)
    assert np.array_equal(play(env, 5), first)
    assert np.array_equal(play(DMCConfig(task=task).env(), 5), first)


def test_the_state_is_one_vector_and_the_end_a_truncation():
    config = DMCConfig(task="walker_walk", action_repeat=4)
    assert config.frames_per_step == 4
    env = config.env()
    env.reset(seed=0)
    steps, over = 0, False
    while not over:
        obs, reward, terminated, over, _ = env.step(np.zeros(6))
        steps += 1
        assert 0 <= reward <= 4
        assert not terminated
    assert steps == 250
    assert obs["vector"].shape == (24,)
    assert obs["vector"].dtype == np.float32


def test_some_tasks_terminate():
    env = DMCConfig(task="pendulum_swingup").env()
    env.reset(seed=0)
    env.engine.task.get_termination = lambda physics: 0.0  # the discount, as the suite's lqr tasks return it
    _, _, terminated, truncated, _ = env.step(np.zeros(1))
    assert (terminated, truncated) == (True, False)


def test_actions_are_scaled_to_their_bounds():
    env = DMCConfig(task="cartpole_swingup").env()
    env._low, env._span = np.array([-3.0]), np.array([4.0])
    told = []
    env.engine.step, step = lambda action: told.append(action) or step(action), env.engine.step
    env.reset(seed=0)
    for action in (-2.0, 0.0, 1.0):
        env.step(np.array([action]))
    assert np.concatenate(told).tolist() == [-3, -1, 1]


@drawn
def test_pictures():
    shown = {}
    for quality in ("standard", "fast"):
        env = DMCConfig(task="cartpole_balance", shows="both", quality=quality, size=32).env()
        obs, _ = env.reset(seed=0)
        assert env.observation_space.contains(obs)
        shown[quality] = obs["image"]
        assert np.array_equal(env.reset(seed=0)[0]["image"], obs["image"])
        env.close()
    assert shown["fast"].std() > 5
    assert not np.array_equal(shown["fast"], shown["standard"])
    assert "WITHOUT shadows" in DMCConfig(shows="image", quality="fast").describe()


@drawn
def test_workers_draw_too():
    config = DMCConfig(task="pendulum_swingup", shows="image", size=16, num=1, quality="fast")
    env = config.make()
    try:
        obs = env.reset_rows(np.ones(1, bool), np.array([1]))
        assert obs["image"].shape == (1, 3, 16, 16)
        assert Spaces.of(env).action.low == (-1.0,)
    finally:
        env.close()


def test_missing_libraries_are_named_with_their_packages(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(dmc, "is_there", lambda library: False)
    with pytest.raises(OneiroError, match="libegl1 libegl-mesa0 libgl1-mesa-dri"):
        DMCConfig(shows="image").env()
    DMCConfig(task="pendulum_swingup").env().close()  # physics needs none
    assert os.environ.pop("MUJOCO_GL") == "disabled"


@drawn
def test_what_cannot_be_drawn_is_answered_with_a_remedy(monkeypatch):
    env = DMCConfig(task="pendulum_swingup", shows="image").env()

    def broken(*_, **__):
        raise RuntimeError("no display")

    monkeypatch.setattr(type(env.engine.physics), "render", broken)
    with pytest.raises(OneiroError, match=r"no display.*libosmesa6"):
        env.reset(seed=0)


def test_names_are_answered():
    assert dmc.find_task("ball_in_cup_catch") == dmc.find_task("cup_catch") == ("ball_in_cup", "catch")
    with pytest.raises(OneiroError, match="Did you mean 'walker_walk'"):
        DMCConfig(task="waker_walk").env()
    with pytest.raises(OneiroError, match="has 2 cameras"):
        DMCConfig(task="pendulum_swingup", camera=3).env()


@pytest.mark.parametrize("values", [{"shows": "all"}, {"size": 0}, {"camera": -2}, {"quality": "best"}])
def test_bad_fields_are_named(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        DMCConfig(**values)
