"""Actions and images survive the way out of the environment and back."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from oneiro.errors import OneiroError
from oneiro.spaces import ActionCodec, Spaces, to_float, to_uint8


def test_discrete_actions_are_one_hot() -> None:
    codec = ActionCodec.of(Discrete(3))
    assert (codec.dim, codec.is_discrete) == (3, True)
    assert codec.to_env(torch.tensor([[0.1, 0.9, 0.3], [2.0, 1.0, 0.0]])).tolist() == [1, 0]
    assert codec.from_env(np.array([1, 0])).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_box_actions_are_clipped_to_their_bounds() -> None:
    codec = ActionCodec.of(Box(np.array([-1.0, 0.0]), np.array([1.0, 2.0]), dtype=np.float64))
    out = codec.to_env(torch.tensor([[-3.0, 1.5], [0.5, 9.0]]))
    assert out.dtype == np.float32
    assert out.tolist() == [[-1.0, 1.5], [0.5, 2.0]]
    assert codec.from_env(out).tolist() == out.tolist()


def test_spaces_without_a_codec_are_refused_with_a_remedy() -> None:
    with pytest.raises(OneiroError, match="RescaleAction"):
        ActionCodec.of(Box(-np.inf, np.inf, (2,)))
    with pytest.raises(OneiroError, match="Discrete and Box are supported"):
        ActionCodec.of(MultiBinary(2))


class Named(gymnasium.Env):
    observation_space = Dict({"image": Box(0, 255, (3, 64, 64), np.uint8)})
    action_space = Discrete(2)


def test_spaces_are_read_from_an_environment() -> None:
    spaces = Spaces.of(Named())
    assert spaces.obs == {"image": (3, 64, 64)}
    assert spaces.action.dim == 2
    unnamed = Named()
    unnamed.observation_space = Box(0, 1, (3,))
    with pytest.raises(OneiroError, match="Dict of named modalities"):
        Spaces.of(unnamed)


def test_a_world_says_which_image_it_needs() -> None:
    spaces = Spaces.of(Named())
    spaces.require_image(64, "VMC")
    with pytest.raises(OneiroError, match="VMC needs an image of 3 x 96 x 96, it is given \\(3, 64, 64\\)"):
        spaces.require_image(96, "VMC")


def test_images_survive_the_round_trip() -> None:
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    as_float = to_float(image)
    assert (as_float.min(), as_float.max()) == (0, 1)
    assert torch.equal(to_uint8(as_float), image)
    assert to_float(as_float) is as_float
    assert to_uint8(torch.tensor([-0.5, 2.0])).tolist() == [0, 255]
