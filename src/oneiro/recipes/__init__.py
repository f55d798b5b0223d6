"""The registry, the only one: recipes by name. A recipe is a function that returns a `Recipe` for a size."""

import importlib
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass

from oneiro.errors import OneiroError, nearest
from oneiro.targets import load_target
from oneiro.training.recipe import Recipe

_MODULES = (
    "oneiro.recipes.vmc",
    "oneiro.recipes.dreamerv3",
    "oneiro.recipes.dreamerv3_2023",
    "oneiro.recipes.diamond",
    "oneiro.recipes.diamond_doom",
    "oneiro.recipes.diamond_video",
)
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
        made = self.make(size)
        if not isinstance(made, Recipe):
            raise OneiroError(f"{self.name} returned a {type(made).__name__}; a recipe returns a Recipe")
        return made


def recipe(make: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """Register a function `f(size: Literal["paper", ...]) -> Recipe` under its name, dashes for underscores."""
    entry = _entry(make)
    _entries[entry.name] = entry
    return make


def _entry(make: Callable[..., Recipe]) -> Entry:
    sizes = typing.get_args(typing.get_type_hints(make).get("size"))
    if not sizes or not all(isinstance(size, str) for size in sizes):
        raise OneiroError(
            f"{make.__name__} does not say which sizes it has; write it as "
            f'def {make.__name__}(size: Literal["small", "large"] = "small") -> Recipe'
        )
    return Entry(make.__name__.replace("_", "-"), make, sizes)


def entries() -> dict[str, Entry]:
    """All recipes of the library, by name."""
    for module in _MODULES:
        importlib.import_module(module)
    return dict(sorted(_entries.items()))


def find(name: str) -> Entry:
    """A recipe by name, or your own by "file.py:function" or "package.module:function"."""
    if ":" in name:
        function = load_target(name)
        if not inspect.isfunction(function):
            raise OneiroError(f"{name} is not a function that returns a Recipe")
        return _entry(function)  # not registered: it may have the name of one of ours
    known = entries()
    if name not in known:
        raise OneiroError(f"unknown recipe {name!r}. {nearest(name, known)}")
    return known[name]
