import numpy as np
import pytest

pytest.importorskip("minigrid")

from oneiro.envs.minigrid import MiniGridConfig
from oneiro.errors import OneiroError


@pytest.mark.parametrize("shows", ["partial", "full", "symbolic"])
def test_an_episode_is_a_function_of_its_seed(shows):
    rows = []
    for seed in (3, 3, 4):
        env = MiniGridConfig(id="MiniGrid-DoorKey-8x8-v0", shows=shows).env()
        rng = np.random.default_rng(0)
        obs, _ = env.reset(seed=seed)
        arrived = [obs]
        arrived += [env.step(int(rng.integers(7)))[0] for _ in range(20)]
        assert all(env.observation_space.contains(row) for row in arrived)
        rows.append(np.concatenate([np.ravel(x) for row in arrived for x in row.values()]))
    assert np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])


def test_the_goal_terminates_and_the_limit_truncates():
    env = MiniGridConfig(id="MiniGrid-Empty-5x5-v0").env()
    env.reset(seed=0)
    for action in (2, 2, 1, 2):
        assert env.step(action)[1:4] == (0.0, False, False)
    _, reward, terminated, truncated, _ = env.step(2)
    assert (terminated, truncated) == (True, False)
    assert reward == pytest.approx(1 - 0.9 * 5 / 100)
    env = MiniGridConfig(id="MiniGrid-Empty-5x5-v0", max_steps=2).env()
    env.reset(seed=0)
    env.step(0)
    assert env.step(0)[2:4] == (False, True)


def test_pictures_are_crisp_and_centred():
    env = MiniGridConfig(id="MiniGrid-Empty-5x5-v0", shows="full").env()
    image = env.reset(seed=0)[0]["image"]
    assert image[:, :2].max() == 0  # 5 cells of 12 pixels in 64
    assert image[:, 2:62, 2:62].max() == 255
    env.step(1)
    assert (env.step(0)[0]["image"] == image).all()


def test_symbols_are_one_hot():
    config = MiniGridConfig(shows="symbolic")
    env = config.env()
    obs, _ = env.reset(seed=0)
    assert obs["vector"].reshape(49, 20).sum(1).tolist() == [3.0] * 49
    assert obs["direction"].tolist() == [1, 0, 0, 0]
    assert env.step(1)[0]["direction"].tolist() == [0, 1, 0, 0]
    assert config.spaces().classes == {"direction": 4}


def test_bad_names_and_fields_are_answered():
    with pytest.raises(OneiroError, match="Did you mean 'MiniGrid-DoorKey-8x8-v0'"):
        MiniGridConfig(id="MiniGrid-DorKey-8x8-v0").make()
    for values in ({"shows": "all"}, {"size": 6}, {"max_steps": -1}):
        with pytest.raises(ValueError, match=next(iter(values))):
            MiniGridConfig(**values)
    with pytest.raises(OneiroError, match="set size"):
        MiniGridConfig(id="MiniGrid-FourRooms-v0", shows="full", size=16).env().reset(seed=0)
