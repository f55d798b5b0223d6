import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

from oneiro.envs.gym import GymConfig
from oneiro.envs.modalities import Modalities
from oneiro.errors import OneiroError
from oneiro.spaces import Spaces


def make(**values):
    return GymConfig(workers="sync", num=1, **values)


def test_numbers_become_a_vector():
    env = make(id="CartPole-v1").make()
    obs = env.reset_rows(np.ones(1, bool), np.array([3]))
    assert obs["vector"].shape == (1, 4)
    assert obs["vector"].dtype == np.float32
    obs, reward, *_ = env.step(np.array([1]))
    assert reward.tolist() == [1.0]
    env.close()
    spaces = make(id="CartPole-v1").spaces()
    assert spaces.obs == {"vector": (4,)}
    assert spaces.action.dim == 2


def test_boxes_act_and_limits_hold():
    env = make(id="Pendulum-v1", max_steps=3).make()
    env.reset_rows(np.ones(1, bool), np.array([3]))
    ends = [env.step(np.array([[0.5]]))[3].item() for _ in range(3)]
    assert ends == [False, False, True]
    env.close()


class Screen(gymnasium.Env):
    """A picture of a colour that the action chooses."""

    observation_space = gymnasium.spaces.Box(0, 255, (30, 40, 3), np.uint8)
    action_space = gymnasium.spaces.Box(0, 255, (3,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros((30, 40, 3), np.uint8), {}

    def step(self, action):
        return np.broadcast_to(action.astype(np.uint8), (30, 40, 3)).copy(), 0.0, False, False, {}


def test_pictures_become_an_image():
    env = Modalities(Screen(), 16)
    obs, _ = env.reset(seed=0)
    assert obs["image"].shape == (3, 16, 16)
    obs, *_ = env.step(np.array([10.0, 20.0, 30.0]))
    assert obs["image"][:, 3, 4].tolist() == [10, 20, 30]
    assert env.observation_space.contains(obs)


def test_dicts_keep_their_keys():
    class Both(Screen):
        observation_space = gymnasium.spaces.Dict(
            {
                "camera": Screen.observation_space,
                "joints": gymnasium.spaces.Box(-1, 1, (2,), np.float64),
                "mode": gymnasium.spaces.Discrete(3),
            }
        )

        def reset(self, *, seed=None, options=None):
            image, info = super().reset(seed=seed)
            return {"camera": image, "joints": np.array([0.5, -0.5]), "mode": 2}, info

    obs, _ = Modalities(Both(), 8).reset()
    assert obs["camera"].shape == (3, 8, 8)
    assert obs["joints"].tolist() == [0.5, -0.5]
    assert obs["mode"].tolist() == [0, 0, 1]
    assert Spaces.of(Modalities(Both(), 8)).classes == {"mode": 3}


@pytest.mark.parametrize(
    ("id", "remedy"),
    [
        ("CartPol-v1", "Did you mean 'CartPole-v1'"),
        ("Pendulum", "Did you mean 'Pendulum-v1'"),
        ("nosuchpackage:Thing-v0", "cannot import 'nosuchpackage'"),
    ],
)
def test_unknown_ids_are_answered(id, remedy):
    with pytest.raises(OneiroError, match=remedy):
        make(id=id).make()


def test_packages_register_their_environments(tmp_path, monkeypatch):
    (tmp_path / "screen_package.py").write_text(
        "import gymnasium\ngymnasium.register('Screen-v0', entry_point='test_gym:Screen')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env = GymConfig(id="screen_package:Screen-v0", num=1).make()  # in a process
    try:
        obs = env.reset_rows(np.ones(1, bool), np.array([0]))
        assert obs["image"].shape == (1, 3, 64, 64)
    finally:
        env.close()
        sys.modules.pop("screen_package", None)


class Mirror(gymnasium.Env):
    """Shows `shown`, takes `taken`, and remembers what it was told."""

    def __init__(self, observation=None, action=None, shown=None):
        self.observation_space = observation or Box(-1, 1, (1,), np.float32)
        self.action_space = action or Discrete(2)
        self.shown = np.zeros(1, np.float32) if shown is None else shown
        self.told = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.told = []
        return self.shown, {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.told.append(action)
        return self.shown, 1.0, len(self.told) == 5, False, {}


@pytest.mark.parametrize(
    ("space", "value", "names"),
    [
        (Discrete(3, start=5), 6, {"category": [0, 1, 0]}),
        (MultiDiscrete([2, 3]), np.array([1, 2]), {"category_0": [0, 1], "category_1": [0, 0, 1]}),
        (MultiBinary(2), np.array([1, 0], np.int8), {"category_0": [0, 1], "category_1": [1, 0]}),
        (Box(0, 255, (3,), np.uint8), np.array([1, 2, 3], np.uint8), {"vector": [1, 2, 3]}),
        (Box(-2, 2, (), np.float64), np.float64(0.5), {"vector": [0.5]}),
        (
            Dict(a=Dict(b=Discrete(2)), c=Box(0, 1, (1,))),
            {"a": {"b": 1}, "c": [0.5]},
            {"a_b": [0, 1], "c": [0.5]},
        ),
        (Tuple([Discrete(2), Box(0, 1, (1,))]), (1, [0.5]), {"0": [0, 1], "1": [0.5]}),
    ],
)
def test_whatever_is_observed_is_named(space, value, names):
    env = Modalities(Mirror(space, shown=value), 8)
    obs, _ = env.reset(seed=0)
    assert {name: array.tolist() for name, array in obs.items()} == names
    assert env.observation_space.contains(obs)
    classes = {name for name, array in names.items() if name in Spaces.of(env).classes}
    assert classes == {name for name in names if name.startswith(("category", "a_", "0"))}


@pytest.mark.parametrize(
    ("shape", "shown"),
    [((20, 24, 3), 3), ((3, 20, 24), 3), ((20, 24, 1), 3), ((1, 20, 24), 3), ((20, 24), 3), ((4, 20, 24), 4)],
)
def test_colours_may_be_on_either_axis(shape, shown):
    frame = np.zeros(shape, np.uint8)
    np.moveaxis(frame, shape.index(24), 0)[12:] = 200  # the right half is bright
    if shape == (3, 20, 24):
        frame[1:] = 0  # and red
    image = Modalities(Mirror(Box(0, 255, shape, np.uint8), shown=frame), 8).reset()[0]["image"]
    assert image.shape == (shown, 8, 8)
    assert image[0, :, :3].max() == 0
    assert image[0, :, 5:].min() == 200
    assert image[1].max() == (0 if shape == (3, 20, 24) else 200)


@pytest.mark.parametrize(
    ("space", "seen", "action", "told"),
    [
        (Discrete(3, start=5), Discrete(3), 1, 6),
        (MultiDiscrete([2, 3], start=[0, 4]), MultiDiscrete([2, 3]), np.array([1, 2]), [1, 6]),
        (MultiDiscrete([3]), Discrete(3), 2, [2]),
        (MultiBinary(3), MultiDiscrete([2, 2, 2]), np.array([1, 0, 1]), [1, 0, 1]),
        (Box(-1, 1, (2,), np.float64), Box(-1, 1, (2,), np.float32), np.array([0.5, 2.0]), [0.5, 1.0]),
        (Box(0, 9, (2,), np.int64), Box(0, 9, (2,), np.float32), np.array([3.6, 9.4]), [4, 9]),
        (Box(-1, 1, (2, 1)), Box(-1, 1, (2, 1)), np.array([[0.5], [0.25]]), [[0.5], [0.25]]),
    ],
)
def test_whatever_is_taken_is_told_in_its_own_terms(space, seen, action, told):
    engine = Mirror(action=space)
    env = Modalities(engine, 8)
    assert env.action_space == seen
    env.reset()
    env.step(action)
    assert np.asarray(engine.told[0]).tolist() == told


def test_actions_are_held_and_rewards_added():
    engine = Mirror()
    env = Modalities(engine, 8, repeat=3)
    env.reset()
    assert env.step(1)[1:4] == (3.0, False, False)
    assert env.step(0)[1:4] == (2.0, True, False)  # it ended
    assert engine.told == [1, 1, 1, 0, 0]
    config = make(id="CartPole-v1", action_repeat=2, max_steps=5)
    env = config.env()
    env.reset(seed=0)
    assert [env.step(i % 2)[3] for i in range(3)] == [False, False, True]
    assert config.frames_per_step == 2
    assert "a decision every 2 steps" in config.describe()


def test_options_reach_the_constructor():
    assert make(id="FrozenLake-v1", options=("map_name=8x8", "is_slippery=False")).spaces().obs == {
        "category": (64,)
    }
    with pytest.raises(OneiroError, match="slip=1"):
        make(id="FrozenLake-v1", options=("slip=1",)).env()
    with pytest.raises(ValueError, match="options"):
        make(options=("slippery",))


@pytest.mark.parametrize(
    ("observation", "action", "remedy"),
    [
        (Box(0, 1, (3, 3), np.float32), None, "FlattenObservation"),
        (Box(0, 1, (20, 20, 3), np.float32), None, "picture of float32.*TransformObservation"),
        (Box(0, 1, (3, 20, 20), np.float64), None, "picture of float64"),
        (Dict(mission=Text(5), x=Discrete(2)), None, "'mission'.*FilterObservation"),
        (None, Box(-np.inf, np.inf, (2,)), "unbounded.*TransformAction"),
        (None, Tuple([Discrete(2)]), "not supported"),
        (Dict({"a": Dict(b=Discrete(2)), "a_b": Discrete(2)}), None, "two things called 'a_b'"),
    ],
)
def test_unsupported_spaces_are_named(observation, action, remedy):
    with pytest.raises(OneiroError, match=remedy):
        Modalities(Mirror(observation, action), 64)


def test_observations_outside_their_space_name_the_environment():
    for space, value in (
        (Discrete(3), 3),
        (MultiDiscrete([2, 2]), np.array([0, 2])),
        (Box(0, 255, (20, 20, 3), np.uint8), np.zeros((20, 20, 3), np.float32)),
    ):
        with pytest.raises(OneiroError, match="Mirror: the observation does not fit"):
            Modalities(Mirror(space, shown=value), 8).reset()


def test_several_choices_reach_the_environment():
    env = Modalities(Mirror(action=MultiDiscrete([3, 2])), 8)
    codec = Spaces.of(env).action
    assert codec.groups == (3, 2)
    env.reset()
    env.step(codec.to_env(torch.tensor([[0.0, 0.0, 1.0, 0.0, 1.0]]))[0])
    assert np.asarray(env.unwrapped.told[0]).tolist() == [2, 1]


def test_modules_beside_the_installed_packages_are_foreign(tmp_path, monkeypatch):
    (tmp_path / "stray_module.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert "stray_module:X-v0" in next(make(id="stray_module:X-v0").foreign_code())
    for known in ("CartPole-v1", "minigrid:MiniGrid-Empty-5x5-v0", "oneiro:Any-v0", "PIL.Image:X-v0"):
        assert not list(make(id=known).foreign_code())
    assert list(make(id="oneiro/Dream-v0", options=("run=a", "recipe=b.py:c")).foreign_code())
    assert not list(make(id="oneiro/Dream-v0", options=("run=a",)).foreign_code())
