"""Names of environments on the command line."""

import pytest
from calling import TOY, oneiro

from oneiro.cli.environments import find_env
from oneiro.envs.atari import AtariConfig
from oneiro.envs.crafter import CrafterConfig
from oneiro.envs.dmc import DMCConfig
from oneiro.envs.gym import GymConfig
from oneiro.envs.minigrid import MiniGridConfig
from oneiro.envs.procgen import ProcgenConfig
from oneiro.envs.takecover import TakeCoverConfig
from oneiro.envs.toy import ToyConfig
from oneiro.envs.vizdoom import VizDoomConfig
from oneiro.errors import OneiroError


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("takecover", TakeCoverConfig()),
        ("doom:takecover", TakeCoverConfig()),
        ("doom:my_way_home", VizDoomConfig(scenario="my_way_home")),
        ("vizdoom", VizDoomConfig()),
        ("atari", AtariConfig()),
        ("atari:Pong", AtariConfig(game="Pong")),
        ("ALE/Pong-v5", AtariConfig(game="ALE/Pong-v5")),
        ("dmc:cartpole_swingup", DMCConfig(task="cartpole_swingup")),
        ("Crafter", CrafterConfig()),
        ("minigrid:MiniGrid-MemoryS7-v0", MiniGridConfig(id="MiniGrid-MemoryS7-v0")),
        ("BabyAI-GoToLocal-v0", MiniGridConfig(id="BabyAI-GoToLocal-v0")),
        ("procgen:maze", ProcgenConfig(game="maze")),
        ("toy:catch", ToyConfig(id="catch")),
        ("CartPole-v1", GymConfig(id="CartPole-v1")),
    ],
)
def test_names(name, config):
    assert find_env(name) == config


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("doom:bsic", "Did you mean 'basic'"),
        ("procgen:coinrum", "Did you mean 'coinrun'"),
        ("atri", "Did you mean 'atari'"),
        ("crafter2", "Did you mean 'crafter'"),
        ("toy:dodg", "Did you mean 'toy:dodge'"),
        ("CartPol-v1", "Did you mean 'CartPole-v1'"),
    ],
)
def test_unknown_names_are_answered(name, remedy):
    with pytest.raises(OneiroError, match=remedy):
        find_env(name)


def test_show_states_the_protocol():
    assert oneiro("show", TOY, "--no-time", "--json").json["env"].startswith("toy dodge")
    assert "environment: toy dodge" in oneiro("show", TOY, "--no-time").out
