"""Actions and images survive the way out of the environment and back."""

import pickle

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from oneiro.behaviours.explore import HeldRandom
from oneiro.errors import OneiroError
from oneiro.onehot import OneHot
from oneiro.spaces import ActionCodec, Spaces, to_float, to_uint8


def test_discrete_actions_are_one_hot() -> None:
    codec = ActionCodec.of(Discrete(3))
    assert (codec.dim, codec.is_discrete) == (3, True)
    assert codec.to_env(torch.tensor([[0.1, 0.9, 0.3], [2.0, 1.0, 0.0]])).tolist() == [1, 0]
    assert codec.from_env(np.array([1, 0])).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_several_choices_are_one_hot_after_one_hot() -> None:
    codec = ActionCodec.of(MultiDiscrete([3, 2]))
    assert (codec.dim, codec.groups, codec.is_discrete) == (5, (3, 2), True)
    scores = torch.tensor([[0.1, 0.9, 0.3, 2.0, 1.0], [5.0, 1.0, 0.0, 0.0, 9.0]])
    out = codec.to_env(scores)
    assert out.dtype == np.int64
    assert out.tolist() == [[1, 0], [0, 1]]
    one_hot = [[0, 1, 0, 1, 0], [1, 0, 0, 0, 1]]
    assert codec.from_env(out).tolist() == one_hot
    assert codec.best(scores).tolist() == one_hot
    assert codec.from_env(np.array([[[2, 0]]])).tolist() == [[[0, 0, 1, 1, 0]]]


def test_groups_say_what_an_action_is() -> None:
    assert ActionCodec(3).groups == (3,)
    assert ActionCodec(3) == ActionCodec(3, groups=(3,)) != ActionCodec(3, groups=(1, 2))
    assert ActionCodec(1, (-1.0,), (1.0,)).groups == ()
    with pytest.raises(ValueError, match="add up"):
        ActionCodec(3, groups=(2, 2))
    with pytest.raises(ValueError, match="as many bounds"):
        ActionCodec(2, (-1.0,), (1.0,))


def test_random_policies_choose_in_every_group() -> None:
    codec = ActionCodec(5, groups=(3, 2))
    policy = HeldRandom(hold=(1,)).build(Spaces({}, codec))
    action = policy.act(None, {}, policy.memory(400)).action  # type: ignore[arg-type]
    for part, n in zip(action.split(codec.groups, -1), codec.groups, strict=True):
        assert part.sum(-1).tolist() == [1.0] * 400
        assert (part.mean(0) - 1 / n).abs().max() < 0.1


def test_box_actions_are_clipped_to_their_bounds() -> None:
    codec = ActionCodec.of(Box(np.array([-1.0, 0.0]), np.array([1.0, 2.0]), dtype=np.float64))
    out = codec.to_env(torch.tensor([[-3.0, 1.5], [0.5, 9.0]]))
    assert out.dtype == np.float32
    assert out.tolist() == [[-1.0, 1.5], [0.5, 2.0]]
    assert codec.from_env(out).tolist() == out.tolist()


def test_spaces_without_a_codec_are_refused_with_a_remedy() -> None:
    with pytest.raises(OneiroError, match="TransformAction"):
        ActionCodec.of(Box(-np.inf, np.inf, (2,)))
    with pytest.raises(OneiroError, match="Discrete, MultiDiscrete and Box are supported"):
        ActionCodec.of(MultiBinary(2))


def test_categories_are_among_the_classes() -> None:
    env = Named()
    env.observation_space = Dict({"image": Named.observation_space["image"], "mode": OneHot(4)})
    spaces = Spaces.of(env)
    assert spaces.obs == {"image": (3, 64, 64), "mode": (4,)}
    assert spaces.classes == {"mode": 4}
    again = pickle.loads(pickle.dumps(env.observation_space))
    assert again["mode"].n == 4
    assert again["mode"].sample().sum() == 1
    assert OneHot(4).row(2).tolist() == [0, 0, 1, 0]
    assert OneHot(4).contains(OneHot(4).row(3))


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


@pytest.mark.parametrize(
    "space",
    [Box(0, 1, (3, 64, 64), dtype) for dtype in (np.float32, np.float64)]
    + [Box(0, 255, (3, 64, 64), dtype) for dtype in (np.int64, np.uint16)]
    + [Box(0, 255, (5,), dtype) for dtype in (np.float64, np.int64, np.uint8)]
    + [Box(0, 255, (4, 4), np.uint8), Box(0, 1, (), np.float32), Discrete(3)],
    ids=str,
)
def test_what_is_no_picture_vector_or_category_is_refused(space: gymnasium.Space) -> None:
    env = Named()
    env.observation_space = Dict({"seen": space})
    with pytest.raises(OneiroError, match=r"'seen' is .*uint8 \[C, H, W\].*float32 \[D\].*Modalities"):
        Spaces.of(env)


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
