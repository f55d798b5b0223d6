"""Names of code outside the package: "my_file.py:Class" or "package.module:Class"."""

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import sys
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

from oneiro.behaviour import Behaviour
from oneiro.errors import OneiroError, nearest
from oneiro.spaces import Spaces
from oneiro.world import WorldModel


def load_target(target: str) -> Any:
    """The object that `target` names. OneiroError says which half of the name is wrong."""
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name:
        raise OneiroError(f"{target!r} names no class; write 'file.py:Class' or 'package.module:Class'")
    module = _from_file(Path(where)) if where.endswith(".py") or "/" in where else _from_package(where)
    found: Any = module
    for part in name.split("."):
        if part not in vars(found):
            public = [n for n, x in vars(found).items() if inspect.isclass(x) and not n.startswith("_")]
            raise OneiroError(f"{where} has no {part!r}. {nearest(part, public or ['nothing'])}")
        found = vars(found)[part]
    return found


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


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise OneiroError(f"there is no file {path}; paths are relative to {Path.cwd()}")
    path = path.resolve()
    name = f"oneiro_target_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise OneiroError(f"{path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise OneiroError(f"{path.name} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _from_package(name: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise OneiroError(
                f"there is no module {error.name!r}; install it, run from its folder, or name a file: 'file.py:Class'"
            ) from error
        raise OneiroError(f"{name} cannot be imported: {error}") from error
    except Exception as error:
        raise OneiroError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
