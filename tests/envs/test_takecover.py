import json
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("vizdoom")

from oneiro.agent import Agent
from oneiro.behaviours.explore import HeldRandom
from oneiro.data.collect import play
from oneiro.envs.takecover import TakeCoverConfig, buttons
from oneiro.errors import MissingExtra
from oneiro.spaces import Spaces

VECTORS = Path(__file__).parents[1] / "vectors" / "worldmodels.json"
pytestmark = pytest.mark.doom


def episode(env, seed, policy=0):
    """Frames, rewards and the two flags at the end, with actions that depend on `policy` alone."""
    rng = np.random.default_rng(policy)
    obs, _ = env.reset(seed=seed)
    frames, rewards = [obs["image"]], []
    while True:
        obs, reward, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 1))
        frames.append(obs["image"])
        rewards.append(reward)
        if terminated or truncated:
            return np.stack(frames), rewards, terminated, truncated


@pytest.fixture
def env(request):
    env = TakeCoverConfig(**getattr(request, "param", {})).env()
    yield env
    env.close()


def test_the_scalar_presses_the_buttons_of_the_paper():
    vector = json.loads(VECTORS.read_text())["doom_action"]
    pressed = {"left": [True, False], "right": [False, True], "none": [False, False]}
    for a, meaning in zip(vector["tanh_output"], vector["meaning"], strict=True):
        assert buttons(a) == pressed[meaning], a


def test_an_episode_is_a_function_of_its_seed(env):
    first = episode(env, 5)
    episode(env, 6)
    env.reset(seed=7)
    env.step(np.array([1.0]))
    again = episode(env, 5)
    other = TakeCoverConfig().env()
    elsewhere = episode(other, 5)
    other.close()
    for repeat in (again, elsewhere):
        assert np.array_equal(repeat[0], first[0])
        assert repeat[1:] == first[1:]
    different = episode(env, 6)
    assert not np.array_equal(different[0][:50], first[0][:50])


def test_reward_counts_tics_and_death_is_terminal(env):
    frames, rewards, terminated, truncated = episode(env, 5)
    assert set(rewards) == {1.0}
    assert (terminated, truncated) == (True, False)
    assert env.engine.game.is_player_dead()
    assert sum(rewards) == env.engine.game.get_episode_time() - 1 == env.engine.game.get_total_reward()
    assert np.array_equal(frames[-1], frames[-2])  # there is no screen after the end
    assert frames.dtype == np.uint8
    assert frames.shape[1:] == (3, 64, 64)


@pytest.mark.parametrize("env", [{"action_repeat": 4}], indirect=True)
def test_repeated_actions_sum_their_tics(env):
    ends = []
    for seed in range(6):
        _, rewards, terminated, _ = episode(env, seed)
        assert terminated
        assert set(rewards[:-1]) == {4.0}
        assert 1 <= rewards[-1] <= 4
        assert sum(rewards) == env.engine.game.get_episode_time() - 1
        ends.append(rewards[-1])
    assert len(set(ends)) > 1  # death came in the middle of a decision, too


@pytest.mark.parametrize("env", [{"max_tics": 50, "action_repeat": 4}], indirect=True)
def test_the_cap_is_a_truncation(env):
    frames, rewards, terminated, truncated = episode(env, 5)
    assert (terminated, truncated) == (False, True)
    assert rewards == [4.0] * 12 + [2.0]
    assert not np.array_equal(frames[-1], frames[-2])  # the last screen is a real one


def test_death_on_the_last_tic_is_death(env):
    tics = len(episode(env, 5)[1])
    same = TakeCoverConfig(max_tics=tics).env()
    *_, terminated, truncated = episode(same, 5)
    same.close()
    assert (terminated, truncated) == (True, False)


def test_picture_of_the_paper():
    config = TakeCoverConfig(resolution="640x480", rows=(0, 400))
    env = config.env()
    obs, _ = env.reset(seed=1)
    small = TakeCoverConfig().env()
    same, _ = small.reset(seed=1)
    for e in (env, small):
        e.close()
    difference = np.abs(obs["image"].astype(int) - same["image"])
    assert 0 < difference.mean() < 12  # the same view, drawn more finely
    assert "640x480 rows 0-399" in config.describe()


@pytest.mark.parametrize("workers", ["sync", "async"])
def test_spaces_are_known_without_the_engine(workers, monkeypatch):
    config = TakeCoverConfig(num=1, workers=workers)
    env = config.make()
    try:
        assert config.spaces() == Spaces.of(env)
    finally:
        env.close()
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"oneiro\[doom\]"):
        config.make()
    assert config.spaces().obs == {"image": (3, 64, 64)}


def test_a_dead_engine_ends_the_episode_and_is_started_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = TakeCoverConfig(num=2, processes=2).make()
    try:
        env.reset_rows(np.ones(2, bool), np.array([1, 2]))
        engines = [p for p in psutil.Process().children(recursive=True) if p.name() == "vizdoom"]
        assert len(engines) == 2
        min(engines, key=lambda p: p.ppid()).kill()
        _, _, _, truncated, info = env.step(np.zeros((2, 1)))
        assert sorted(info["crashed"].tolist()) == [False, True]
        assert truncated.tolist() == info["crashed"].tolist()
        env.reset_rows(info["crashed"], np.array([3, 3]))
        _, reward, _, truncated, info = env.step(np.zeros((2, 1)))
        assert not info["crashed"].any()
        assert reward.tolist() == [1, 1]
    finally:
        env.close()
    assert not list(tmp_path.iterdir())  # the engine's own files are elsewhere


@pytest.mark.parametrize(
    "values",
    [{"skill": 6}, {"rows": (0, 400)}, {"rows": (50, 50)}, {"resolution": "1x1"}, {"action_repeat": 0}],
)
def test_bad_fields_are_named(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        TakeCoverConfig(**values)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("repeat", "policy", "mean", "margin"),
    [
        (1, HeldRandom(hold=(1,)), 226, 45),  # published by others: 226 +- 102, World Models 210 +- 108
        (1, HeldRandom(hold=(10,)), 305, 60),  # 305 +- 143
    ],
)
def test_random_policies_score_as_published(repeat, policy, mean, margin):
    config = TakeCoverConfig(action_repeat=repeat, num=8)
    env = config.make()
    try:
        agent = Agent(None, policy.build(config.spaces())).eval()
        scores = [e.info["score"] for e in play(env, agent, range(100), seed=0, record=False)]
    finally:
        env.close()
    assert abs(np.mean(scores) - mean) < margin
