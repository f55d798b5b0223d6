"""Any environment of Gymnasium, shown as named modalities."""

import importlib
import warnings
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from oneiro.envs.config import EnvConfig
from oneiro.envs.image import shrink
from oneiro.envs.slots import fault
from oneiro.errors import OneiroError, nearest


@dataclass(frozen=True, kw_only=True)
class GymConfig(EnvConfig):
    """An environment by its id; write `package:Id-v0` if a package has to be imported to register it.

    What it observes becomes: a uint8 picture [H, W, 1 or 3] -> "image" [3, size, size] (Pillow, bilinear);
    numbers -> "vector" float32; a Dict of these keeps its keys, each picture resized. Actions: Discrete or Box.
    Frame skip, caps and rewards are those of the id. With `pixels` the picture is what it renders, which
    becomes "image" beside the rest (or instead of it, with `pixels="only"`).
    """

    id: str = "CartPole-v1"  # Gymnasium id, or package:Id
    size: int = 64  # side of resized pictures, pixels
    pixels: str = "as is"  # "as is", "add" = also what it renders, "only" = nothing but what it renders
    max_steps: int = 0  # truncate after so many steps; 0 = the limit registered with the id

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pixels not in ("as is", "add", "only"):
            raise ValueError(f"pixels must be 'as is', 'add' or 'only', got {self.pixels!r}")
        if self.size < 1 or self.max_steps < 0:
            raise ValueError(
                f"size must be positive and max_steps not negative: {self.size}, {self.max_steps}"
            )

    def env(self) -> gymnasium.Env:
        """See `EnvConfig.env`."""
        spec = find(self.id)
        options: dict[str, Any] = {"disable_env_checker": True}  # the worker checks every step
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
        if self.pixels != "as is":
            env = gymnasium.wrappers.AddRenderObservation(env, render_only=self.pixels == "only")
        return Modalities(env, self.size)

    def describe(self) -> str:
        """See `EnvConfig.describe`."""
        shown = {"as is": "", "add": ", with what it renders", "only": ", only what it renders"}[self.pixels]
        return f"Gymnasium {self.id}{shown}, pictures {self.size}x{self.size}, score = sum of rewards"


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


class Modalities(gymnasium.Wrapper):
    """Names and shapes of this library for what a Gymnasium environment observes."""

    def __init__(self, env: gymnasium.Env, size: int) -> None:
        super().__init__(env)
        self.size = size
        space = env.observation_space
        self._parts = dict(space.items()) if isinstance(space, gymnasium.spaces.Dict) else {"": space}
        self._names = {key: self._name(key, part) for key, part in self._parts.items()}
        self.observation_space = gymnasium.spaces.Dict(
            {self._names[key]: self._space(part) for key, part in self._parts.items()}
        )
        if not isinstance(env.action_space, gymnasium.spaces.Box | gymnasium.spaces.Discrete):
            raise OneiroError(f"actions of {env.action_space} are not supported; Discrete and Box are")
        if isinstance(env.action_space, gymnasium.spaces.Discrete) and env.action_space.start != 0:
            raise OneiroError(
                f"actions of {env.action_space} do not start at 0; wrap it with TransformAction"
            )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._convert(obs), info

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._convert(obs), reward, terminated, truncated, info

    def _convert(self, obs: Any) -> dict[str, np.ndarray]:
        return {
            name: self._one(name, obs[key] if key else obs, self._parts[key])
            for key, name in self._names.items()
        }

    def _one(self, name: str, value: Any, space: gymnasium.Space) -> np.ndarray:
        if _is_picture(space):
            if complaint := fault(value, space):
                raise OneiroError(f"{self.spec and self.spec.id}: observation {name!r} {complaint}")
            return shrink(value, self.size)
        if isinstance(space, gymnasium.spaces.Discrete):
            return np.eye(int(space.n), dtype=np.float32)[int(value) - int(space.start)]
        return np.asarray(value, np.float32).reshape(-1)

    def _name(self, key: str, space: gymnasium.Space) -> str:
        if key:
            return "image" if key == "pixels" else key  # "pixels" is what AddRenderObservation calls it
        return "image" if _is_picture(space) else "vector"

    def _space(self, space: gymnasium.Space) -> gymnasium.Space:
        if _is_picture(space):
            return gymnasium.spaces.Box(0, 255, (3, self.size, self.size), np.uint8)
        if isinstance(space, gymnasium.spaces.Discrete):
            return gymnasium.spaces.Box(0, 1, (int(space.n),), np.float32)
        if isinstance(space, gymnasium.spaces.Box) and len(space.shape) <= 1:
            low, high = (np.asarray(bound, np.float32).reshape(-1) for bound in (space.low, space.high))
            return gymnasium.spaces.Box(low, high, dtype=np.float32)
        raise OneiroError(
            f"cannot show {space}: supported are uint8 pictures [H, W, 1 or 3], vectors, Discrete, and a Dict of "
            "these; for numbers in several axes use gymnasium.wrappers.FlattenObservation"
        )


def _is_picture(space: gymnasium.Space) -> bool:
    if not isinstance(space, gymnasium.spaces.Box) or space.dtype != np.uint8:
        return False
    return len(space.shape) == 2 or (len(space.shape) == 3 and space.shape[2] in (1, 3))
