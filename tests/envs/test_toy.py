import numpy as np
import pytest

from oneiro.envs.toy import GRID, Catch, Dodge, ToyConfig


def cells(obs):
    return obs["image"][:, ::4, ::4]


def sidestep(obs):
    """Leave the column of the lowest ball, towards the middle if it is right above."""
    picture = cells(obs)
    player = int(picture[1, -1].argmax())
    rows, columns = np.nonzero(picture[0])
    if not len(rows):
        return np.array([0.0])
    near = columns[rows == rows.max()]
    centre = near.mean()
    if abs(centre - player) > 1.6:
        return np.array([0.0])
    away = np.sign(player - centre) or np.sign(GRID / 2 - 0.5 - player)
    if not 0 < player < GRID - 1:
        away = np.sign(GRID / 2 - player)
    return np.array([float(away)])


def play(env, policy, seed):
    obs, _ = env.reset(seed=seed)
    score, over = 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(policy(obs))
        score += reward
        over = terminated or truncated
    return score


def test_dodge_rewards_skill():
    env, rng = Dodge(), np.random.default_rng(0)
    skilled = np.mean([play(env, sidestep, seed) for seed in range(50)])
    random = np.mean([play(env, lambda obs: rng.uniform(-1, 1, 1), seed) for seed in range(50)])
    still = np.mean([play(env, lambda obs: np.zeros(1), seed) for seed in range(50)])
    assert skilled > 50
    assert random < 25
    assert still < 15


def test_catch_rewards_skill():
    env, rng = Catch(), np.random.default_rng(0)

    def follow(obs):
        picture = cells(obs)
        ball = int(picture[0].max(0).argmax())
        player = int(np.nonzero(picture[2, -1])[0].mean())
        return int(np.sign(ball - player)) + 1

    assert all(play(env, follow, seed) == 1.0 for seed in range(30))
    assert np.mean([play(env, lambda obs: rng.integers(3), seed) for seed in range(100)]) < 0


@pytest.mark.parametrize("id", ["dodge", "catch", "counter"])
def test_a_seed_is_an_episode(id):
    config = ToyConfig(id=id)
    first, second = config.env(), config.env()
    second.reset(seed=99)
    second.step(second.action_space.sample())
    for a, b in zip(walk(first), walk(second), strict=True):
        assert np.array_equal(a, b)
    assert id in config.describe()


def walk(env):
    obs, _ = env.reset(seed=5)
    yield obs["image"]
    env.action_space.seed(0)
    for _ in range(5):
        obs, reward, *_ = env.step(env.action_space.sample())
        yield np.append(obs["image"], np.uint8(reward))
