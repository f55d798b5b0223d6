"""A policy of another library behaves like any behaviour."""

from typing import Any

import numpy as np
import pytest
import torch

from oneiro.behaviours.outside import OutsidePolicy
from oneiro.envs.toy import ToyConfig
from oneiro.spaces import to_uint8
from oneiro.testing import CatchOracle, DodgeOracle, check_behaviour, played_rows, require


def to_the_ball(obs: np.ndarray, deterministic: bool) -> tuple[np.ndarray, None]:
    return np.sign(obs[:, 3]).astype(np.int64) + 1, None


def test_it_conforms() -> None:
    rows = played_rows(ToyConfig(id="catch").env)
    require(check_behaviour(OutsidePolicy(to_the_ball), CatchOracle(), rows))


@pytest.mark.parametrize(("channels", "shape"), [("first", (2, 3, 64, 64)), ("last", (2, 64, 64, 3))])
def test_it_is_shown_what_the_dream_shows(channels: Any, shape: tuple[int, ...]) -> None:
    world, seen = DodgeOracle(), []

    def far_right(obs: np.ndarray, deterministic: bool) -> tuple[np.ndarray, None]:
        seen.append((obs, deterministic))
        return np.full((len(obs), 1), 7.0), None

    policy = OutsidePolicy(far_right, sees="image", channels=channels)
    decision = policy.act(world, world.start(2), {}, explore=True)
    assert decision.action.tolist() == [[1.0], [1.0]]  # clipped to the bounds
    (obs, deterministic) = seen[0]
    assert (obs.shape, obs.dtype, deterministic) == (shape, np.uint8, False)
    picture = to_uint8(world.decode(world.start(2))["image"])
    assert np.array_equal(obs if channels == "first" else obs.transpose(0, 3, 1, 2), picture.numpy())
    assert torch.equal(policy.act(world, world.start(2), {}).action, decision.action)
