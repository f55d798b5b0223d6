"""The registry, the only one: recipes by name. A recipe is a function that returns a `Recipe` for a size."""

import importlib
import importlib.util
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from oneiro.errors import OneiroError, nearest
from oneiro.training.recipe import Recipe

_MODULES = ("oneiro.recipes.vmc",)
_entries: dict[str, "Entry"] = {}


@dataclass(frozen=True)
class Entry:
    """A registered recipe."""

    name: str
    make: Callable[..., Recipe]
    sizes: tuple[str, ...]

    @property
    def about(self) -> str:
        """First line of its docstring."""
        return (inspect.getdoc(self.make) or "").split("\n")[0]

    def build(self, size: str | None = None) -> Recipe:
        """The recipe at a size; None = its first, the paper's."""
        size = size or self.sizes[0]
        if size not in self.sizes:
            raise OneiroError(f"recipe {self.name} has no size {size!r}. {nearest(size, self.sizes)}")
        return self.make(size)


def recipe(make: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """Register a function `f(size: Literal["paper", ...]) -> Recipe` under its name, dashes for underscores."""
    sizes = typing.get_args(inspect.signature(make).parameters["size"].annotation)
    name = make.__name__.replace("_", "-")
    _entries[name] = Entry(name, make, sizes)
    return make


def entries() -> dict[str, Entry]:
    """All recipes of the library, by name."""
    for module in _MODULES:
        importlib.import_module(module)
    return dict(sorted(_entries.items()))


def find(name: str) -> Entry:
    """A recipe by name, or your own by "file.py:function" or "package.module:function"."""
    if ":" in name:
        function = load_target(name)
        if not callable(function):
            raise OneiroError(f"{name} is not a function that returns a Recipe")
        recipe(function)
        return _entries[function.__name__.replace("_", "-")]
    known = entries()
    if name not in known:
        raise OneiroError(f"unknown recipe {name!r}. {nearest(name, known)}")
    return known[name]


def load_target(name: str) -> Any:
    """The object at "file.py:Name" or "package.module:Name"."""
    place, _, attribute = name.rpartition(":")
    module = _from_file(Path(place)) if place.endswith(".py") else _from_package(place)
    if not hasattr(module, attribute):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise OneiroError(f"{place} has no {attribute!r}. {nearest(attribute, public)}")
    return getattr(module, attribute)


def _from_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise OneiroError(f"there is no Python file {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _from_package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise OneiroError(
            f"cannot import {name!r}: {error}; give file.py:Name or package.module:Name"
        ) from error
