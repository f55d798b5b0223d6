"""What an environment returns is compared with its spaces before anything is made of it."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from oneiro.envs.slots import Layout, Rules, Slots
from oneiro.errors import OneiroError


@pytest.mark.parametrize(
    ("space", "good", "bad", "complaint"),
    [
        (Box(0, 3, (2,), np.int64), [0, 3], [9, 0], "is 9, above"),
        (Box(0, 3, (2,), np.int64), [0, 3], [0, -1], "is -1, below"),
        (Box(0, 100, (1,), np.uint8), [100], [200], "is 200, above"),
        (Box(np.array([0, -5]), np.array([1, 5]), dtype=np.int32), [0, -5], [-5, 0], "is -5, below"),
        (MultiDiscrete([3, 2]), [2, 1], [7, 0], "is 7, above"),
        (MultiDiscrete([3, 2], start=[1, 1]), [3, 2], [0, 1], "is 0, below"),
        (MultiBinary(2), [0, 1], [2, 0], "is 2, above"),
        (Discrete(3, start=1), 3, 0, "not in Discrete(3, start=1)"),
    ],
)
def test_integers_keep_to_their_space(space, good, bad, complaint):
    rules = Rules(space)
    assert rules.fault(np.asarray(good, space.dtype)) == ""
    assert complaint in rules.fault(np.asarray(bad, space.dtype))


def test_pictures_are_not_searched():
    assert Rules(Box(0, 255, (3, 64, 64), np.uint8)).bounds is None


class Out(gymnasium.Env):
    observation_space = Dict({"level": Box(0, 3, (1,), np.int64)})
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        return {"level": np.array([9])}, {}


def test_the_slot_names_the_culprit():
    slots = Slots(SimpleNamespace(env=Out))
    layout = Layout.of(1, *slots.spaces(0))
    slots.arrays = layout.arrays(bytearray(layout.nbytes))
    with pytest.raises(
        OneiroError, match="step 0 of the episode with seed 5 observation 'level' is 9, above"
    ):
        slots.reset({0: 5})
