"""Names and shapes of this library for whatever a Gymnasium environment observes and takes.

observed                               shown
Box uint8 [H, W], [H, W, C], [C, H, W] picture uint8 [3 or C, size, size], grey as three equal colours
Box of numbers [D]                     float32 [D]
Discrete(n)                            one-hot float32 [n], a category
MultiDiscrete, MultiBinary             name_0, name_1, ...: a category each
Dict, Tuple                            their parts; name of a part in a Dict of a Dict: outer_inner
taken
Discrete, MultiDiscrete, MultiBinary   integers from 0
Box with finite bounds                 float32
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from oneiro.envs.image import bilinear, shrink
from oneiro.envs.slots import Rules
from oneiro.errors import OneiroError
from oneiro.onehot import OneHot

Step = tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]]


@dataclass(frozen=True)
class Modality:
    """One thing that is shown: where it is in the observation, and how it becomes an array of `space`."""

    name: str
    path: tuple[Any, ...]
    space: gymnasium.Space
    show: Callable[[Any], np.ndarray]

    def of(self, obs: Any) -> np.ndarray:
        """The array, from the whole observation."""
        for key in self.path:
            obs = obs[key]
        return self.show(obs)


class Modalities(gymnasium.Wrapper):
    """An environment seen through its modalities; each action is held for `repeat` of its steps."""

    def __init__(self, env: gymnasium.Env, size: int, repeat: int = 1) -> None:
        super().__init__(env)
        self.repeat = repeat
        self.name = env.spec.id if env.spec else type(env.unwrapped).__name__
        self.parts = list(_parts(env.observation_space, size, ()))
        names = [part.name for part in self.parts]
        if twice := {name for name in names if names.count(name) > 1}:
            raise OneiroError(f"{self.name} observes two things called {sorted(twice)[0]!r}; rename one")
        self.observation_space = spaces.Dict({part.name: part.space for part in self.parts})
        self.action_space, self._told = actions(env.action_space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._show(obs), info

    def step(self, action: Any) -> Step:
        """`repeat` steps of the environment, fewer at the end; rewards are added up."""
        told = self._told(action)
        obs, total, terminated, truncated, info = self.env.step(told)
        for _ in range(self.repeat - 1):
            if terminated or truncated:
                break
            obs, reward, terminated, truncated, info = self.env.step(told)
            total = float(total) + float(reward)
        return self._show(obs), total, bool(terminated), bool(truncated), info

    def _show(self, obs: Any) -> dict[str, np.ndarray]:
        try:
            return {part.name: part.of(obs) for part in self.parts}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise OneiroError(f"{self.name}: the observation does not fit its space: {error!r}") from error


def _parts(space: gymnasium.Space, size: int, path: tuple[Any, ...]) -> Iterator[Modality]:
    """What is shown of `space`, which lies at `path` of the observation."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
        for key, part in inner:
            yield from _parts(part, size, (*path, key))
        return
    name = _name(path, space)
    if isinstance(space, spaces.Discrete):
        shown, start, rules = OneHot(int(space.n)), int(space.start), Rules(space)
        yield Modality(name, path, shown, lambda value: shown.row(int(_checked(name, value, rules)) - start))
    elif isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        sizes, starts = _groups(space)
        for index, (n, start) in enumerate(zip(sizes, starts, strict=True)):
            yield _category(f"{name}_{index}", path, n, start, index)
    elif isinstance(space, spaces.Box):
        yield _box(name, path, space, size)
    else:
        raise OneiroError(
            f"cannot show {_called(path)}: {space}. Supported are pictures, vectors, Discrete, MultiDiscrete, "
            "MultiBinary, and Dict and Tuple of these; leave it out with gymnasium.wrappers.FilterObservation"
        )


def _name(path: tuple[Any, ...], space: gymnasium.Space) -> str:
    name = "_".join(str(key) for key in path).replace("/", "_").replace(".", "_")
    if name:
        return "image" if name == "pixels" else name  # "pixels" is what AddRenderObservation calls it
    if isinstance(space, spaces.Box):
        return "vector" if _colour_axis(space) is None else "image"
    return "category"


def _category(name: str, path: tuple[Any, ...], n: int, start: int, index: int) -> Modality:
    shown = OneHot(n)

    def show(value: Any) -> np.ndarray:
        chosen = int(np.ravel(value)[index]) - start
        if not 0 <= chosen < n:
            raise ValueError(f"{name} is {chosen + start}, not in {start}..{start + n - 1}")
        return shown.row(chosen)

    return Modality(name, path, shown, show)


def _box(name: str, path: tuple[Any, ...], space: spaces.Box, size: int) -> Modality:
    axis = _colour_axis(space)
    if axis is None:
        if len(space.shape) > 1:
            raise OneiroError(
                f"cannot show {_called(path)}: {space}, numbers in several axes; flatten it, for example with "
                "gymnasium.wrappers.FlattenObservation"
            )
        low, high = (np.asarray(bound, np.float32).reshape(-1) for bound in (space.low, space.high))
        shown = spaces.Box(low, high, dtype=np.float32)
        return Modality(name, path, shown, lambda value: np.asarray(value, np.float32).reshape(-1))
    if space.dtype != np.uint8:
        raise OneiroError(
            f"{_called(path)} looks like a picture of {space.dtype}; pictures are uint8, 0 to 255. Wrap the "
            "environment with gymnasium.wrappers.TransformObservation so that it returns such"
        )
    channels = 1 if len(space.shape) == 2 else space.shape[axis]
    shape = (3 if channels == 1 else channels, size, size)
    picture, rules = spaces.Box(0, 255, shape, np.uint8), Rules(space)
    return Modality(name, path, picture, lambda value: _picture(_checked(name, value, rules), axis, size))


def _colour_axis(space: spaces.Box) -> int | None:
    """The axis of a picture's channels (grey [H, W]: 2); None for what is no picture."""
    shape = space.shape
    if len(shape) == 2 and space.dtype == np.uint8:
        return 2
    if len(shape) != 3 or min(shape) < 1:
        return None
    if shape[2] in (1, 3, 4):
        return 2
    return 0 if shape[0] <= 16 <= min(shape[1:]) else None


def _picture(value: np.ndarray, axis: int, size: int) -> np.ndarray:
    """uint8 picture with its channels anywhere -> [3 or C, size, size]."""
    frame = value if value.ndim == 2 else np.moveaxis(value, axis, 2)
    if frame.ndim == 2 or frame.shape[2] in (1, 3):
        return shrink(frame, size)
    return np.stack([bilinear(frame[:, :, channel], size) for channel in range(frame.shape[2])])


def _checked(name: str, value: Any, rules: Rules) -> Any:
    if complaint := rules.fault(value):
        raise ValueError(f"{name} {complaint}")
    return value


def _groups(space: spaces.MultiDiscrete | spaces.MultiBinary) -> tuple[list[int], list[int]]:
    """Sizes and first numbers of the choices."""
    if isinstance(space, spaces.MultiBinary):
        count = int(np.prod(space.shape))
        return [2] * count, [0] * count
    return np.ravel(space.nvec).tolist(), np.ravel(space.start).tolist()


def _called(path: tuple[Any, ...]) -> str:
    return f"the observation {'/'.join(map(str, path))!r}" if path else "the observation"


def actions(space: gymnasium.Space) -> tuple[gymnasium.Space, Callable[[Any], Any]]:
    """The action space this library sees, and how an action of it becomes one of `space`."""
    if isinstance(space, spaces.Discrete):
        first = int(space.start)
        return spaces.Discrete(int(space.n)), lambda action: int(action) + first
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        sizes, starts = _groups(space)
        shape, dtype, offset = space.shape, space.dtype, np.array(starts)
        seen = spaces.Discrete(sizes[0]) if len(sizes) == 1 else spaces.MultiDiscrete(sizes)
        return seen, lambda action: (np.ravel(action) + offset).astype(dtype).reshape(shape)
    if not isinstance(space, spaces.Box):
        raise OneiroError(
            f"actions of {space} are not supported; Discrete, MultiDiscrete, MultiBinary and Box are. Wrap the "
            "environment with gymnasium.wrappers.TransformAction"
        )
    low, high = space.low, space.high
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise OneiroError(
            f"the actions of {space} are unbounded; wrap the environment with gymnasium.wrappers.TransformAction "
            "so that they have finite bounds, for example Box(-1, 1)"
        )
    is_whole = np.issubdtype(space.dtype, np.integer)

    def told(action: Any) -> np.ndarray:
        numbers = np.asarray(action, np.float64).reshape(space.shape)
        return np.clip(np.rint(numbers) if is_whole else numbers, low, high).astype(space.dtype)

    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32), told
