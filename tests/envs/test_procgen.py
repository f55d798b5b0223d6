import importlib.util

import numpy as np
import pytest

from oneiro.envs import libraries, procgen
from oneiro.envs.procgen import ProcgenConfig
from oneiro.errors import MissingExtra, OneiroError
from oneiro.spaces import Spaces

playable = pytest.mark.skipif(
    not importlib.util.find_spec("envpool") or not libraries.is_there("Qt5"),
    reason="extra `envpool` or Qt5 is not installed",
)


def play(env, seed, steps=60):
    rng = np.random.default_rng(0)
    obs, _ = env.reset(seed=seed)
    images, rewards = [obs["image"]], []
    for _ in range(steps):
        obs, reward, terminated, truncated, _ = env.step(int(rng.integers(15)))
        images.append(obs["image"])
        rewards.append(reward)
        if terminated or truncated:
            break
    return np.stack(images), rewards, terminated, truncated


@playable
def test_an_episode_is_a_function_of_its_seed():
    config = ProcgenConfig(game="bigfish")
    env = config.env()
    first, other, again = play(env, 1), play(env, 2), play(env, 1)
    assert np.array_equal(first[0], again[0])
    assert first[1:] == again[1:]
    assert not np.array_equal(first[0][0], other[0][0])
    assert Spaces.of(env) == config.spaces()
    env.close()


@playable
def test_levels_limits_and_sizes():
    env = ProcgenConfig(game="maze", mode="easy", levels=1, first_level=7, max_steps=5, size=32).env()
    first, other = play(env, 1), play(env, 2)
    env.close()
    assert np.array_equal(first[0][0], other[0][0])  # there is but one level
    assert first[0].shape == (6, 3, 32, 32)
    assert first[2:] == (False, True)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"oneiro\[envpool\]"):
        ProcgenConfig().make()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(procgen, "is_there", lambda library: False)
    with pytest.raises(OneiroError, match="libqt5core5a libqt5gui5"):
        ProcgenConfig().make()


@pytest.mark.parametrize("values", [{"mode": "soft"}, {"levels": -1}, {"max_steps": -1}])
def test_bad_fields_are_named(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        ProcgenConfig(**values)


def test_unknown_games_are_answered():
    with pytest.raises(ValueError, match="Did you mean 'coinrun'"):
        ProcgenConfig(game="coinrum")


def test_libraries_are_looked_for(monkeypatch):
    monkeypatch.setattr(libraries, "_loads", lambda file: file == "libQt5Core.so.5")
    assert not libraries.is_there("Qt5")  # it needs both
    monkeypatch.setattr(libraries, "_loads", lambda file: file == "libOSMesa.so.6")
    assert libraries.is_there("OSMesa")  # any of the names
    assert libraries.remedy(["OSMesa"]) == "apt-get install --no-install-recommends libosmesa6"
