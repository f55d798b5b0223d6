"""World Models: spaces that it takes and those that it refuses."""

import pytest

from oneiro.errors import OneiroError
from oneiro.spaces import ActionCodec, Spaces
from oneiro.worlds.vmc import VMCConfig

THIRDS = VMCConfig(z_dim=4, channels=(2, 2, 2, 2), hidden_dim=8, num_mixtures=2, action_input="thirds")


@pytest.mark.parametrize(
    ("codec", "called"),
    [
        (ActionCodec(3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0)), "3 numbers"),
        (ActionCodec(4), r"one of \(4,\) choices"),
        (ActionCodec(1), r"one of \(1,\) choices"),
    ],
)
def test_thirds_are_of_one_number(codec, called):
    with pytest.raises(OneiroError, match=f"one number.*{called}.*--world.action-input raw"):
        THIRDS.build(Spaces({"image": (3, 64, 64)}, codec))


def test_thirds_of_a_number_are_three_inputs():
    world = THIRDS.build(Spaces({"image": (3, 64, 64)}, ActionCodec(1, (-1.0,), (1.0,))))
    assert len(world.memory.lstm.kernel) == (4 + 3 + 1) + 8
