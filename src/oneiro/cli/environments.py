"""Names of environments on the command line."""

import dataclasses
import difflib

import gymnasium

from oneiro.envs import gym
from oneiro.envs.car_racing import CarRacingConfig
from oneiro.envs.config import EnvConfig
from oneiro.envs.gym import GymConfig
from oneiro.envs.takecover import TakeCoverConfig
from oneiro.envs.toy import ToyConfig
from oneiro.errors import OneiroError, nearest
from oneiro.targets import load_target

NAMED: dict[str, EnvConfig] = {
    "takecover": TakeCoverConfig(),
    "car-racing": CarRacingConfig(),
    "toy:dodge": ToyConfig(id="dodge"),
    "toy:catch": ToyConfig(id="catch"),
    "toy:counter": ToyConfig(id="counter"),
}
ALIASES = {"doom:takecover": "takecover", "carracing": "car-racing"}


def find_env(name: str) -> EnvConfig:
    """One of ours, a Gymnasium id, or "file.py:Config" of your own; OneiroError with the nearest name."""
    ours = ALIASES.get(name.lower().replace("_", "-"), name.lower().replace("_", "-"))
    if ours in NAMED:
        return NAMED[ours]
    if ".py:" in name:
        return _own(name)
    is_ours = name.startswith(("toy:", "doom:"))
    is_close = name not in gymnasium.registry and difflib.get_close_matches(ours, NAMED, cutoff=0.6)
    if is_ours or is_close:
        raise OneiroError(f"unknown environment {name!r}. {nearest(ours, [*NAMED, *ALIASES])}")
    gym.find(name)
    return GymConfig(id=name)


def _own(name: str) -> EnvConfig:
    found = load_target(name)
    config = found() if dataclasses.is_dataclass(found) and isinstance(found, type) else found
    if not isinstance(config, EnvConfig):
        raise OneiroError(f"{name} is no environment config; it must be an oneiro.envs.EnvConfig")
    return config
