import subprocess
import sys

import pytest

pytest.importorskip("crafter")

from oneiro.envs.crafter import CrafterConfig

PLAY = """
import sys, zlib, numpy as np
from oneiro.envs.crafter import CrafterConfig
env = CrafterConfig(size=27).env()
ballast = [object() for _ in range(int(sys.argv[1]))]  # other addresses, another order of sets
for seed in map(int, sys.argv[2:]):
    rng, digest = np.random.default_rng(0), 0
    env.reset(seed=seed)
    for _ in range(80):
        obs, _, terminated, truncated, _ = env.step(int(rng.integers(17)))
        digest = zlib.crc32(obs["image"].tobytes(), digest)
        if terminated or truncated:
            break
    print(digest)
"""


def digests(*arguments):
    command = [sys.executable, "-c", PLAY, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_an_episode_is_a_function_of_its_seed_in_every_process():
    other, again = digests("0", "4", "3")
    assert digests("12345", "3") == [again] != [other]


def test_limits_spaces_and_deaths():
    env = CrafterConfig(max_steps=2).env()
    obs, _ = env.reset(seed=1)
    for creatures in env.engine._world.chunks.values():
        order = [env.engine._world._objects.index(creature) for creature in creatures]
        assert order == sorted(order)  # by arrival; nothing has moved yet
    assert sum(map(len, env.engine._world.chunks.values())) == len(env.engine._world.objects)
    assert env.observation_space.contains(obs)
    assert env.action_space.n == 17
    assert env.step(0)[2:4] == (False, False)
    assert env.step(0)[2:4] == (False, True)
    env.reset(seed=0)
    env.engine._player.health = 0
    _, reward, terminated, truncated, info = env.step(0)
    assert (terminated, truncated) == (True, False)
    assert reward == pytest.approx(-0.9)
    assert len(info["achievements"]) == 22


def test_rewards_can_be_off_and_bad_fields_are_named():
    assert not CrafterConfig(reward=False).env().engine._reward
    assert "rewards are off" in CrafterConfig(reward=False).describe()
    for values in ({"size": 8}, {"max_steps": 0}):
        with pytest.raises(ValueError, match=next(iter(values))):
            CrafterConfig(**values)
