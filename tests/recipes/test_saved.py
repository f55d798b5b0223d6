"""The player that `oneiro.load` gives, apart from how a run folder is read."""

import numpy as np
import torch

from oneiro.agent import Agent
from oneiro.behaviours.explore import HeldRandom
from oneiro.recipes.saved import Player
from oneiro.spaces import ActionCodec, Spaces
from oneiro.testing.oracles import CatchOracle

SPACES = Spaces({"front": (3, 8, 8)}, ActionCodec(7))


def player() -> Player:
    return Player(Agent(CatchOracle(), HeldRandom(hold=(1,)).build(SPACES)), SPACES)


def episode(agent: Player) -> list[int]:
    agent.reset()
    obs = {"front": np.zeros((3, 8, 8), np.uint8)}
    return [agent.act(obs, explore=True) for _ in range(12)]


def test_a_picture_may_have_any_name_and_comes_alone():
    assert 0 <= player().act(np.zeros((3, 8, 8), np.uint8)) < 7


def test_sampled_actions_differ_from_episode_to_episode_and_follow_torchs_seed():
    agent = player()
    torch.manual_seed(0)
    one, two = episode(agent), episode(agent)
    assert one != two
    torch.manual_seed(0)
    assert episode(agent) == one
