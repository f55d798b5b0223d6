"""Names of environments on the command line."""

import dataclasses
import difflib
from typing import Any

import gymnasium

from oneiro.envs import gym
from oneiro.envs.atari import AtariConfig
from oneiro.envs.car_racing import CarRacingConfig
from oneiro.envs.config import EnvConfig
from oneiro.envs.crafter import CrafterConfig
from oneiro.envs.dmc import DMCConfig
from oneiro.envs.gym import GymConfig
from oneiro.envs.minigrid import MiniGridConfig
from oneiro.envs.procgen import ProcgenConfig
from oneiro.envs.takecover import TakeCoverConfig
from oneiro.envs.toy import ToyConfig
from oneiro.envs.vizdoom import VizDoomConfig
from oneiro.errors import OneiroError, nearest
from oneiro.targets import load_target

FAMILIES: dict[str, tuple[Any, str]] = {
    "atari": (AtariConfig, "game"),
    "dmc": (DMCConfig, "task"),
    "doom": (VizDoomConfig, "scenario"),
    "minigrid": (MiniGridConfig, "id"),
    "procgen": (ProcgenConfig, "game"),
}
"""Environments of which there are many, and the field that tells them apart: atari:pong is game="pong"."""
NAMED: dict[str, EnvConfig] = {name: config() for name, (config, _) in FAMILIES.items()} | {
    "takecover": TakeCoverConfig(),
    "car-racing": CarRacingConfig(),
    "crafter": CrafterConfig(),
    "toy:dodge": ToyConfig(id="dodge"),
    "toy:catch": ToyConfig(id="catch"),
    "toy:counter": ToyConfig(id="counter"),
}
ALIASES = {"doom:takecover": "takecover", "carracing": "car-racing", "vizdoom": "doom"}
IDS = {"ALE/": "atari", "MiniGrid-": "minigrid", "BabyAI-": "minigrid"}
"""Ids of Gymnasium that are better seen through a config of ours."""


def find_env(name: str) -> EnvConfig:
    """One of ours, a Gymnasium id, or "file.py:Config" of your own; OneiroError with the nearest name."""
    ours = ALIASES.get(name.lower().replace("_", "-"), name.lower().replace("_", "-"))
    if ours in NAMED:
        return NAMED[ours]
    if ".py:" in name:
        return _own(name)
    family, _, member = name.partition(":")
    family = next((ours for id, ours in IDS.items() if name.startswith(id)), family.lower())
    if family in FAMILIES:
        return _member(family, member or name)
    is_ours = name.startswith("toy:")
    is_close = name not in gymnasium.registry and difflib.get_close_matches(ours, NAMED, cutoff=0.6)
    if is_ours or is_close:
        raise OneiroError(f"unknown environment {name!r}. {nearest(ours, [*NAMED, *ALIASES])}")
    gym.find(name)
    return GymConfig(id=name)


def _member(family: str, name: str) -> EnvConfig:
    config, field = FAMILIES[family]
    try:
        return config(**{field: name})
    except ValueError as error:
        raise OneiroError(str(error)) from error


def _own(name: str) -> EnvConfig:
    found = load_target(name)
    config = found() if dataclasses.is_dataclass(found) and isinstance(found, type) else found
    if not isinstance(config, EnvConfig):
        raise OneiroError(f"{name} is no environment config; it must be an oneiro.envs.EnvConfig")
    return config
