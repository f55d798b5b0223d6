import importlib.util

import numpy as np
import pytest
import torch

from oneiro.agent import Agent
from oneiro.behaviours.linear import LinearConfig
from oneiro.behaviours.population import Population
from oneiro.data.collect import play
from oneiro.envs.car_racing import CarRacing, CarRacingConfig
from oneiro.envs.image import shrink
from oneiro.errors import MissingExtra
from oneiro.spaces import Spaces
from oneiro.worlds.vmc import VMCConfig

has_box2d = pytest.mark.skipif(not importlib.util.find_spec("Box2D"), reason="extra `car` is not installed")
ENVPOOL = pytest.mark.skipif(
    not importlib.util.find_spec("envpool"), reason="extra `envpool` is not installed"
)
ENGINES = [pytest.param("gymnasium", marks=has_box2d), pytest.param("envpool", marks=ENVPOOL)]
STRAIGHT = np.array([0.0, 0.5, 0.0], np.float32)


def drive(env, seed, steps=20):
    obs, _ = env.reset(seed=seed)
    frames, rewards = [obs["image"]], []
    for _ in range(steps):
        obs, reward, *_ = env.step(STRAIGHT)
        frames.append(obs["image"])
        rewards.append(reward)
    return np.stack(frames), rewards


@pytest.mark.parametrize("engine", ENGINES)
def test_an_episode_is_a_function_of_its_seed(engine):
    config = CarRacingConfig(engine=engine)
    env = config.env()
    frames, rewards = drive(env, 3)
    other, _ = drive(env, 4)
    again, same = drive(env, 3)
    env.close()
    assert frames.shape == (21, 3, 64, 64)
    assert np.array_equal(frames, again)
    assert rewards == same
    assert not np.array_equal(frames[0], other[0])
    assert frames[-1].std() > 10  # something is drawn
    assert len(np.unique(np.round(rewards, 3))) > 1  # tiles were visited
    assert config.spaces() == Spaces.of(env)
    assert engine in config.describe()


class Engine:
    """A game that is over after 3 steps, with a penalty, and shows its step number."""

    def __init__(self):
        self.steps = 0

    def _obs(self):
        obs = np.full((96, 96, 3), self.steps, np.uint8)
        obs[84:] = 255  # instruments
        return obs

    def reset(self, seed=None):
        self.steps = 0
        return self._obs(), {}

    def step(self, action):
        self.steps += 1
        return self._obs(), -100.0 if self.steps >= 3 else 7.0, self.steps >= 3, False, {}

    def close(self):
        pass


def ends(config, steps):
    env = CarRacing(config, Engine())
    env.reset(seed=0)
    rows = [env.step(STRAIGHT) for _ in range(steps)]
    assert [int(row[0]["image"].max()) for row in rows] == list(range(1, steps + 1))  # no instruments
    return [row[1:4] for row in rows]


def test_the_game_ends_when_it_is_over():
    assert ends(CarRacingConfig(), 3) == [(7.0, False, False), (7.0, False, False), (-100.0, True, False)]


def test_the_cap_is_a_truncation():
    assert ends(CarRacingConfig(max_steps=2), 2) == [(7.0, False, False), (7.0, False, True)]


def test_a_full_episode_goes_on_without_reward():
    rows = ends(CarRacingConfig(max_steps=5, full_episode=True, engine="gymnasium"), 5)
    assert rows == [(7.0, False, False)] * 2 + [
        (-100.0, False, False),
        (0.0, False, False),
        (0.0, False, True),
    ]


def test_auto_takes_the_engine_that_can_do_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name == "envpool" else None)
    assert CarRacingConfig().chosen == "envpool"
    assert CarRacingConfig(full_episode=True).chosen == "gymnasium"
    with pytest.raises(MissingExtra, match=r"oneiro\[car\]"):
        CarRacingConfig(engine="gymnasium").make()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert CarRacingConfig().chosen == "gymnasium"
    with pytest.raises(MissingExtra, match=r"oneiro\[envpool\]"):
        CarRacingConfig(engine="envpool").make()


@pytest.mark.parametrize(
    "values", [{"rows": (0, 97)}, {"max_steps": 0}, {"full_episode": True, "engine": "envpool"}]
)
def test_bad_fields_are_named(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        CarRacingConfig(**values)


def test_shrinking_keeps_orientation_and_colour():
    frame = np.zeros((100, 160, 3), np.uint8)
    frame[:50, :, 0] = 200  # red above
    frame[:, :80, 2] = 100  # blue on the left
    image = shrink(frame, 64)
    assert image.shape == (3, 64, 64)
    assert image[:, 10, 10].tolist() == [200, 0, 100]
    assert image[:, 50, 50].tolist() == [0, 0, 0]
    assert shrink(frame, 64, (50, 100))[0].max() == 0
    assert shrink(frame[..., :1], 64)[:, 10, 10].tolist() == [200, 200, 200]
    assert np.array_equal(shrink(frame[:64, :64], 64)[0], frame[:64, :64, 0])


@ENVPOOL
def test_fitness_in_envpool_is_a_function_of_weights_and_track():
    """As `Evolve` in the environment has it: each row its own weights, equal draws the same track."""
    env = CarRacingConfig(engine="envpool", num=4, workers="sync", max_steps=40).make()
    config = VMCConfig(
        z_dim=4, channels=(2, 2, 2, 2), hidden_dim=4, feature="zh", predicts_end=False, seeing="mean"
    )
    world = config.build(Spaces.of(env)).eval()
    behaviour = LinearConfig(has_bias=True, squash="car").build(world.spaces, world.feature_dim)
    population = Population(behaviour)
    straight, left = torch.zeros(2, population.num_weights)
    left[:3] = torch.tensor([-3.0, 3.0, -3.0])
    weights = torch.stack([straight, left, straight, straight])
    try:
        played = play(
            env,
            Agent(world, population),
            range(4),
            seed=1,
            seed_ids=[0, 0, 0, 1],
            record=False,
            memory=lambda ids: population.seat(weights[ids]),
        )
        scores = {episode.id: episode.info["score"] for episode in played}
    finally:
        env.close()
    assert scores[0] == pytest.approx(scores[2])
    assert len({round(scores[id], 3) for id in (0, 1, 3)}) == 3
