"""What `oneiro check file.py:Class` tests: worlds, behaviours and their configs, built with their defaults."""

import dataclasses
import inspect
import typing
from typing import Any

from oneiro.behaviour import Behaviour
from oneiro.envs.toy import ToyConfig
from oneiro.errors import OneiroError
from oneiro.spaces import Spaces
from oneiro.targets import load_target
from oneiro.testing.checks import Check, Told
from oneiro.testing.oracles import CatchOracle, DodgeOracle
from oneiro.testing.rows import played_rows
from oneiro.testing.suite import check_behaviour, check_world
from oneiro.world import WorldModel

ORACLES = {"dodge": DodgeOracle, "catch": CatchOracle}


def check_target(
    target: str, toy: typing.Literal["dodge", "catch"] = "dodge", told: Told = lambda _: None
) -> list[Check]:
    """Load, build and check what `target` names. Worlds are given the spaces of a toy (image 3 x 64 x 64; dodge:
    one number in -1..1, catch: three actions) and rows played in it; behaviours act in the oracle of that toy.
    """
    found, env, oracle = load_target(target), ToyConfig(id=toy), ORACLES[toy]()
    rows = played_rows(env.env)
    if _is_behaviour(found):
        return check_behaviour(
            build_behaviour(found, oracle.spaces, oracle.feature_dim), oracle, rows, told=told
        )
    return check_world(build_world(found, oracle.spaces), rows, told=told)


def _is_behaviour(target: Any) -> bool:
    if inspect.isclass(target):
        if issubclass(target, Behaviour):
            return True
        if issubclass(target, WorldModel):
            return False
    build = getattr(target, "build", None)
    return isinstance(target, Behaviour) or (
        build is not None and "feature_dim" in inspect.signature(build).parameters
    )


def build_world(target: Any, spaces: Spaces) -> WorldModel:
    """A world from what a target names: a config class or record with `build(spaces)`, a world class that
    takes (spaces) or (config, spaces) or nothing, or a world.
    """
    if isinstance(target, WorldModel):
        return target
    if inspect.isclass(target) and issubclass(target, WorldModel):
        return target(*_arguments(target, spaces))
    if inspect.isclass(target) and dataclasses.is_dataclass(target):
        target = _default(target)
    build = getattr(target, "build", None)
    if build is None:
        raise OneiroError(
            f"{_name(target)} is neither a WorldModel nor a config with build(spaces); name one of those"
        )
    world = build(spaces)
    if not isinstance(world, WorldModel):
        raise OneiroError(
            f"build(spaces) of {_name(target)} returned a {type(world).__name__}, no WorldModel"
        )
    return world


def build_behaviour(target: Any, spaces: Spaces, feature_dim: int) -> Behaviour:
    """The same for behaviours, whose configs have `build(spaces, feature_dim)`."""
    if isinstance(target, Behaviour):
        return target
    if inspect.isclass(target) and dataclasses.is_dataclass(target):
        target = _default(target)
    elif inspect.isclass(target) and issubclass(target, Behaviour):
        return target(*_arguments(target, spaces, feature_dim))
    build = getattr(target, "build", None)
    if build is None:
        raise OneiroError(
            f"{_name(target)} is neither a Behaviour nor a config with build(spaces, feature_dim); name one of those"
        )
    behaviour = build(spaces, feature_dim)
    if not isinstance(behaviour, Behaviour):
        raise OneiroError(f"build of {_name(target)} returned a {type(behaviour).__name__}, no Behaviour")
    return behaviour


def _arguments(cls: type, *known: Any) -> list[Any]:
    """Positional arguments for `cls(...)`: a default config where one is asked for first, then `known`."""
    needed = [
        p.name
        for p in list(inspect.signature(cls.__init__).parameters.values())[1:]
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if needed and needed[0] == "config":
        config = typing.get_type_hints(cls.__init__).get("config")
        if not (inspect.isclass(config) and dataclasses.is_dataclass(config)):
            raise OneiroError(
                f"{cls.__name__}.__init__ does not say which class its config is; annotate it, or name the config "
                "class instead"
            )
        return [_default(config), *known[: len(needed) - 1]]
    if len(needed) > len(known):
        raise OneiroError(
            f"{cls.__name__} needs the arguments {', '.join(needed)}; name a config class with a build method "
            "instead, all of whose fields have defaults"
        )
    return list(known[: len(needed)])


def _default(config: Any) -> Any:
    missing = [
        f.name
        for f in dataclasses.fields(config)
        if f.init and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise OneiroError(f"{config.__name__} has no default for {', '.join(missing)}; give each field one")
    return config()


def _name(target: Any) -> str:
    return target.__name__ if inspect.isclass(target) or inspect.isfunction(target) else type(target).__name__
