import numpy as np
import pytest

pytest.importorskip("vizdoom")

from oneiro.envs.image import shrink
from oneiro.envs.vizdoom import SCENARIOS, VizDoomConfig
from oneiro.errors import OneiroError
from oneiro.spaces import Spaces

pytestmark = pytest.mark.doom


def episode(env, seed, steps=1000):
    rng = np.random.default_rng(0)
    obs, _ = env.reset(seed=seed)
    images, rewards, terminated, truncated = [obs["image"]], [], False, False
    while not (terminated or truncated) and len(rewards) < steps:
        obs, reward, terminated, truncated, _ = env.step(int(rng.integers(env.action_space.n)))
        images.append(obs["image"])
        rewards.append(reward)
    return np.stack(images), rewards, terminated, truncated


def test_an_episode_is_a_function_of_its_seed():
    env = VizDoomConfig(scenario="basic", size=32).env()
    first, other, again = episode(env, 1), episode(env, 2), episode(env, 1)
    assert np.array_equal(first[0], again[0])
    assert first[1:] == again[1:]
    assert not np.array_equal(first[0][0], other[0][0])
    ends = [episode(env, seed)[1:] for seed in range(8)]
    env.close()
    for rewards, terminated, truncated in ends:
        assert terminated != truncated
        tics = -sum(rewards) + (101 if terminated else 0)  # -1 a tic, -5 a shot, 101 for the monster
        assert tics >= len(rewards)
        if truncated:
            assert len(rewards) == -(-286 // 4)  # 300 tics, the first 14 are not played
    assert {terminated for _, terminated, _ in ends} == {True, False}


def test_buttons_are_actions():
    config = VizDoomConfig(scenario="health_gathering")
    env = config.env()
    assert env.pressed == [[False] * 3, [True, False, False], [False, True, False], [False, False, True]]
    assert Spaces.of(env) == config.spaces()
    env = VizDoomConfig(scenario="my_way_home", buttons=("MOVE_FORWARD+TURN_LEFT",)).env()
    assert env.pressed == [[False] * 5, [True, False, True, False, False]]
    assert VizDoomConfig(scenario="deathmatch").env().action_space.n == 12
    with pytest.raises(OneiroError, match="Did you mean 'MOVE_LEFT'"):
        VizDoomConfig(scenario="basic", buttons=("MOVE_LEF",)).env()
    for scenario in SCENARIOS:
        assert VizDoomConfig(scenario=scenario).env().action_space.n >= 3


def test_variables_limits_and_repeats():
    config = VizDoomConfig(scenario="defend_the_center", variables=True, max_tics=10, skill=1, size=16)
    assert config.frames_per_step == 4
    env = config.env()
    obs, _ = env.reset(seed=0)
    assert obs["vector"].tolist() == [52.0, 100.0]  # ammunition, doubled at this skill; health
    ends = [env.step(0)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    assert env.engine.game.get_episode_time() == 10 + 10  # it starts at tic 10
    env.close()
    with pytest.raises(OneiroError, match="no game variables"):
        VizDoomConfig(scenario="my_way_home", variables=True).env()


def test_rows_crop_the_screen():
    whole, part = (VizDoomConfig(scenario="basic", size=16, rows=rows).env() for rows in ((), (40, 104)))
    full, cut = (env.reset(seed=3)[0]["image"] for env in (whole, part))
    whole.close()
    assert np.array_equal(cut, shrink(part.engine.screen(), 16, (40, 104)))
    assert not np.array_equal(cut, full)
    part.close()
    assert "rows 40-103 to 16x16" in part.config.describe()
    with pytest.raises(ValueError, match="rows are"):
        VizDoomConfig(rows=(1,))


@pytest.mark.parametrize("values", [{"action_repeat": 0}, {"skill": 6}, {"resolution": "1x1"}, {"size": 0}])
def test_bad_fields_are_named(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        VizDoomConfig(**values)


def test_unknown_scenarios_are_answered():
    with pytest.raises(ValueError, match="Did you mean 'deadly_corridor'"):
        VizDoomConfig(scenario="deadly_coridor")
