"""Frames, rewards and flags of DreamerV3's own Atari wrapper (recorded with ale-py 0.9.0 and Pillow 13), and frames
of ale-py's vector environment.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

pytest.importorskip("ale_py")

from oneiro.envs.atari import AtariConfig

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "atari_wrapper_dreamerv3.json").read_text())
PROBE = [8, 24, 40, 56]  # rows and columns of the pixels that were recorded
OFFICIAL = {
    "breakout_64_rgb_needed": AtariConfig(game="breakout", noops=(0, 0)),
    "pong_64_rgb_needed": AtariConfig(game="pong", noops=(0, 0)),
    "pong_96_gray_all": AtariConfig(game="pong", preset="dreamer-200m", sticky=0.0, noops=(0, 0)),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_frames_and_rewards_are_those_of_the_official_wrapper(name):
    vector, env = VECTORS[name], OFFICIAL[name].env()
    assert env.action_space.n == vector["num_actions"]
    height, width, channels = vector["shape"]
    assert env.observation_space["image"].shape == (channels, height, width)
    for episode in range(2):  # the second one begins as the first did
        obs, _ = env.reset(seed=episode)
        arrived = [(obs["image"], 0.0, False)]
        for action in vector["actions"]:
            obs, reward, terminated, truncated, _ = env.step(action)
            arrived.append((obs["image"], reward, terminated or truncated))
        for (image, reward, last), step in zip(arrived, vector["steps"], strict=True):
            assert round(float(image.mean()), 4) == step["mean"]  # the mean of the vector has four digits
            assert [int(image[0, i, i]) for i in PROBE] == step["probe"]
            assert (reward, last) == (step["rew"], step["last"])


@pytest.mark.parametrize("life", ["ignore", "flag"])
def test_flags_are_those_of_the_official_wrapper(life):
    env = AtariConfig(game="breakout", noops=(0, 0), life=life).env()
    env.reset(seed=0)
    flags, lives = [], [5]
    for step in range(200):
        _, _, terminated, truncated, info = env.step(1 if step % 10 == 0 else 0)
        lives.append(info["lives"])
        if terminated or truncated:
            flags.append([step, bool(terminated), True])
            break
        assert info["terminal"] == (life == "flag" and lives[-1] < lives[-2])
    assert flags == VECTORS["breakout_lives_discount_flags"]["flags"]
    assert np.diff(lives).sum() == -5


@pytest.mark.parametrize("colour", ["rgb", "gray"])
def test_with_area_every_pixel_is_that_of_ale_py(colour):
    from ale_py.vector_env import AtariVectorEnv

    env = AtariConfig(game="ms_pacman", preset="dreamer-2023", noops=(0, 0), colour=colour).env()
    theirs = AtariVectorEnv(
        "ms_pacman",
        1,
        num_threads=1,
        grayscale=colour == "gray",
        img_height=64,
        img_width=64,
        stack_num=1,
        reward_clipping=False,
        use_fire_reset=False,
        noop_max=0,
    )
    rng = np.random.default_rng(0)
    ours, expected = env.reset(seed=0)[0], theirs.reset(seed=0)[0]
    for _ in range(80):
        assert_array_equal(ours["image"], expected.reshape(64, 64, -1).transpose(2, 0, 1))
        action = int(rng.integers(9))
        ours, reward, *_ = env.step(action)
        expected, points, *_ = theirs.step(np.array([action]))
        assert reward == points[0]
    theirs.close()
