"""Any environment of Gymnasium, one's own included, shown as named modalities."""

import ast
import importlib
import importlib.machinery
import site
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

from oneiro.envs.config import EnvConfig
from oneiro.envs.modalities import Modalities
from oneiro.errors import OneiroError, nearest


@dataclass(frozen=True, kw_only=True)
class GymConfig(EnvConfig):
    """An environment by its id; write `package:Id-v0` if a package has to be imported to register it.

    What it observes becomes: a uint8 picture, colours first or last, -> "image" [3, size, size] (Pillow, bilinear);
    numbers -> "vector" float32; Discrete and the like -> one-hot "category"; a Dict of these keeps its keys, each
    picture resized. Actions: Discrete, MultiDiscrete, MultiBinary, bounded Box. Caps and rewards are those of the id.
    With `pixels` the picture is what it renders, which becomes "image" beside the rest (or instead of it, with
    `pixels="only"`).
    """

    id: str = "CartPole-v1"  # Gymnasium id, or package:Id
    size: int = 64  # side of resized pictures, pixels
    pixels: str = "as is"  # "as is", "add" = also what it renders, "only" = nothing but what it renders
    action_repeat: int = 1  # steps of the environment that a decision lasts; their rewards are added up
    max_steps: int = (
        0  # truncate after so many steps of the environment; 0 = the limit registered with the id
    )
    options: tuple[
        str, ...
    ] = ()  # name=value, for the environment's constructor: map_name=8x8 is_slippery=False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pixels not in ("as is", "add", "only"):
            raise ValueError(f"pixels must be 'as is', 'add' or 'only', got {self.pixels!r}")
        if self.size < 1 or self.max_steps < 0:
            raise ValueError(
                f"size must be positive and max_steps not negative: {self.size}, {self.max_steps}"
            )
        if self.action_repeat < 1:
            raise ValueError(f"action_repeat must be at least 1, got {self.action_repeat}")
        if wrong := [text for text in self.options if "=" not in text]:
            raise ValueError(f"options are name=value, got {wrong[0]!r}")

    @property
    def frames_per_step(self) -> int:
        """See `EnvConfig.frames_per_step`; a frame is a step of the environment."""
        return self.action_repeat

    @property
    def longest(self) -> int:
        """See `EnvConfig.longest`."""
        return -(-(self.max_steps or find(self.id).max_episode_steps or 0) // self.action_repeat)

    def env(self) -> gymnasium.Env:
        """See `EnvConfig.env`."""
        spec = find(self.id)
        options = {"disable_env_checker": True} | dict(map(_option, self.options))  # every step is checked
        if self.max_steps:
            options["max_episode_steps"] = self.max_steps
        if self.pixels != "as is":
            options["render_mode"] = "rgb_array"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # engines warn when they are imported; see car_racing.py
                env = gymnasium.make(spec, **options)
        except gymnasium.error.DependencyNotInstalled as error:
            raise OneiroError(f"{self.id} needs a package that is not installed: {error}") from error
        except (TypeError, gymnasium.error.Error) as error:
            raise OneiroError(f"{self.id} cannot be made with {', '.join(self.options)}: {error}") from error
        if self.pixels != "as is":
            env = gymnasium.wrappers.AddRenderObservation(env, render_only=self.pixels == "only")
        return Modalities(env, self.size, self.action_repeat)

    def foreign_code(self) -> Iterator[str]:
        """Code outside the installed packages that `env` would import; a file that is not trusted may not name it."""
        package, _, name = self.id.rpartition(":")
        if package and not _is_installed(package):
            yield f"the environment {self.id}, whose module is not an installed package"
        named = dict(text.split("=", 1) for text in self.options)
        if name.startswith("oneiro/") and "recipe" in named:
            yield f"the environment {self.id} with {', '.join(self.options)}"

    def describe(self) -> str:
        """See `EnvConfig.describe`."""
        shown = {"as is": "", "add": ", with what it renders", "only": ", only what it renders"}[self.pixels]
        facts = [f"Gymnasium {self.id}{shown}", *self.options, f"pictures {self.size}x{self.size}"]
        facts += [f"a decision every {self.action_repeat} steps"] * (self.action_repeat > 1)
        facts += [f"at most {self.max_steps:,} steps"] * (self.max_steps > 0)
        return ", ".join([*facts, "score = sum of rewards"])


def find(id: str) -> Any:
    """The registered spec of `id` (after importing `package` of `package:Id`); OneiroError if there is none."""
    package, _, name = id.rpartition(":")
    if package:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise OneiroError(
                f"{id}: cannot import {package!r} ({error}); install it, or mend the name"
            ) from error
    if name not in gymnasium.registry:
        versions = [known for known in gymnasium.registry if known.rpartition("-v")[0] == name]
        remedy = f"Did you mean {versions[-1]!r}?" if versions else nearest(name, gymnasium.registry)
        where = "" if package else " (for an environment of another package write package:Id)"
        raise OneiroError(f"there is no environment {name!r}. {remedy}{where}")
    return gymnasium.registry[name]


def _is_installed(package: str) -> bool:
    """Whether it was imported already or is found among the installed packages, editable ones included."""
    if package in sys.modules:
        return True
    top = package.partition(".")[0]
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    places += [site.getusersitepackages()] * bool(site.ENABLE_USER_SITE)
    for link in [file for place in places for file in Path(place).glob("*.pth")]:
        places += [line for line in link.read_text(errors="replace").splitlines() if Path(line).is_absolute()]
    if importlib.machinery.PathFinder.find_spec(top, places):
        return True
    others = [finder for finder in sys.meta_path if finder is not importlib.machinery.PathFinder]
    return any(finder.find_spec(top, None) for finder in others)  # of editable installs


def _option(text: str) -> tuple[str, Any]:
    """name=value, the value a Python literal or else a word."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
