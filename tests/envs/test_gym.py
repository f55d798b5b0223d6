import sys

import gymnasium
import numpy as np
import pytest

from oneiro.envs.gym import GymConfig, Modalities
from oneiro.errors import OneiroError


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


def test_unsupported_spaces_are_named():
    class Odd(Screen):
        observation_space = gymnasium.spaces.Box(0, 1, (3, 3), np.float32)

    with pytest.raises(OneiroError, match="FlattenObservation"):
        Modalities(Odd(), 64)
