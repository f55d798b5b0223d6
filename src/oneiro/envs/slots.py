"""`Slots`: the environments of one worker, and the arrays through which they are seen.

Each slot is one environment. Whatever it returns is checked before it is passed on: a wrong shape or type, a
number that is not finite or out of its bounds stops everything with an error that names the culprit.
"""

import mmap
import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any

import gymnasium
import numpy as np

from oneiro.errors import OneiroError

TOLERANCE = 1e-4  # by which a number may leave its bounds, relative to their size: float32 rounding


@dataclass(frozen=True)
class Layout:
    """Where the arrays of `num` slots lie in one block of memory: {name: (shape of one slot, dtype)}."""

    num: int
    fields: dict[str, tuple[tuple[int, ...], str]]

    @classmethod
    def of(cls, num: int, obs: gymnasium.spaces.Dict, action: gymnasium.Space) -> "Layout":
        """Observations, action, and what a step returns."""
        named = [(f"obs/{key}", space) for key, space in obs.items()] + [("action", action)]
        fields = {name: (tuple(space.shape or ()), np.dtype(space.dtype).str) for name, space in named}
        flags = {name: ((), "|b1") for name in ("terminated", "truncated", "terminal")}
        return cls(num, fields | {"reward": ((), "<f8")} | flags)

    @property
    def nbytes(self) -> int:
        """Size of the block."""
        return sum(self._bytes(shape, dtype) for shape, dtype in self.fields.values())

    def arrays(self, block: bytearray | mmap.mmap) -> dict[str, np.ndarray]:
        """[num, ...] views into a block of `nbytes`."""
        views, offset = {}, 0
        for name, (shape, dtype) in self.fields.items():
            count = self.num * prod(shape)
            views[name] = np.frombuffer(block, dtype, count, offset).reshape(self.num, *shape)
            offset += self._bytes(shape, dtype)
        return views

    def _bytes(self, shape: tuple[int, ...], dtype: str) -> int:
        size = self.num * prod(shape) * np.dtype(dtype).itemsize
        return -(-size // 64) * 64  # every array begins on a cache line


class Slots:
    """The environments of one worker, by slot number; each is opened when it is first needed."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.arrays: dict[str, np.ndarray] = {}
        self._envs: dict[int, gymnasium.Env] = {}
        self._rules: dict[int, dict[str, Rules]] = {}
        self._where: dict[int, tuple[int | None, int]] = {}  # slot -> seed and step, for messages

    def spaces(self, slot: int) -> tuple[gymnasium.spaces.Dict, gymnasium.Space]:
        """Spaces of the environment in `slot`, with which `arrays` must be laid out before the first reset."""
        env = self._open(slot)
        if not isinstance(env.observation_space, gymnasium.spaces.Dict):
            raise OneiroError(f"{self._name} observes {env.observation_space}; expected a Dict of modalities")
        return env.observation_space, env.action_space

    def reset(self, seeds: dict[int, int]) -> dict[int, str]:
        """Begin an episode in each of these slots; returns {slot: traceback} of those that raised."""
        return self._each(seeds, lambda slot: self._reset(slot, seeds[slot]))

    def step(self, slots: Iterable[int]) -> dict[int, str]:
        """One step by the action in `arrays`; returns {slot: traceback} of those that raised."""
        return self._each(slots, self._step)

    def close(self) -> None:
        """Close every environment."""
        for slot in list(self._envs):
            self._drop(slot)

    @property
    def _name(self) -> str:
        return f"the environment of {type(self.config).__name__}"

    def _each(self, slots: Iterable[int], work: Any) -> dict[int, str]:
        failed = {}
        for slot in slots:
            try:
                work(slot)
            except OneiroError:
                raise
            except Exception:
                failed[slot] = traceback.format_exc()
                self._drop(slot)
        return failed

    def _open(self, slot: int) -> gymnasium.Env:
        if slot not in self._envs:
            env = self._envs[slot] = self.config.env()
            space = env.observation_space
            if isinstance(space, gymnasium.spaces.Dict):
                self._rules[slot] = {key: Rules(part) for key, part in space.items()}
        return self._envs[slot]

    def _drop(self, slot: int) -> None:
        env = self._envs.pop(slot, None)
        if env is not None:
            with suppress(Exception):  # it has failed already
                env.close()

    def _reset(self, slot: int, seed: int) -> None:
        self._where[slot] = (seed, 0)
        obs, _ = self._open(slot).reset(seed=seed)
        self._write(slot, obs, 0.0, False, False, {})

    def _step(self, slot: int) -> None:
        env = self._envs[slot]
        seed, step = self._where[slot]
        self._where[slot] = (seed, step + 1)
        action = self.arrays["action"][slot]
        self._write(slot, *env.step(action.copy() if action.ndim else action.item()))

    def _write(
        self, slot: int, obs: Any, reward: Any, terminated: Any, truncated: Any, info: dict[str, Any]
    ) -> None:
        rules = self._rules[slot]
        if not isinstance(obs, dict) or obs.keys() != rules.keys():
            found = sorted(obs) if isinstance(obs, dict) else type(obs).__name__
            raise self._error(slot, f"the observation is {found}, its space has {sorted(rules)}")
        for key, rule in rules.items():
            if complaint := rule.fault(obs[key]):
                raise self._error(slot, f"observation {key!r} {complaint}")
            self.arrays[f"obs/{key}"][slot] = obs[key]
        try:
            value = float(reward)
        except (TypeError, ValueError):
            raise self._error(slot, f"the reward is {reward!r}, not a number") from None
        if not isfinite(value):
            raise self._error(slot, f"the reward is {value}")
        self.arrays["reward"][slot] = value
        self.arrays["terminated"][slot] = bool(terminated)
        self.arrays["truncated"][slot] = bool(truncated)
        self.arrays["terminal"][slot] = bool(info.get("terminal", terminated))

    def _error(self, slot: int, what: str) -> OneiroError:
        seed, step = self._where[slot]
        return OneiroError(
            f"{self._name}: at step {step} of the episode with seed {seed} {what}. Mend the environment, or "
            "wrap it so that it keeps to its spaces"
        )


class Rules:
    """What an element of `space` must be; bounds that its type keeps to anyway (uint8 in 0..255) cost nothing."""

    def __init__(self, space: gymnasium.Space) -> None:
        self.space = space
        self.bounds = _bounds(space)

    def fault(self, value: Any) -> str:
        """What is wrong with `value`: "is NaN", ...; "" if nothing."""
        space = self.space
        if isinstance(space, gymnasium.spaces.Discrete):
            return "" if space.contains(value) else f"is {value!r}, not in {space}"
        array = np.asarray(value)
        if array.shape != space.shape or array.dtype != space.dtype:
            return f"is {array.dtype} {list(array.shape)}, its space says {space.dtype} {list(space.shape or ())}"
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            return f"is {'NaN' if np.isnan(array).any() else 'infinite'}"
        if self.bounds is None:
            return ""
        low, high = self.bounds
        if (wrong := array < low).any():
            return f"is {array[wrong].min():g}, below its space's bounds"
        if (wrong := array > high).any():
            return f"is {array[wrong].max():g}, above its space's bounds"
        return ""


def _bounds(space: gymnasium.Space) -> tuple[np.ndarray, np.ndarray] | None:
    """(least, greatest) of each number, with some room for the rounding of floats; None if the type keeps to them."""
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return np.zeros(space.shape, space.dtype), np.ones(space.shape, space.dtype)
    if not isinstance(space, gymnasium.spaces.Box):
        return None
    low, high = space.low, space.high
    if np.issubdtype(space.dtype, np.floating):
        return low - TOLERANCE * (1 + np.abs(low)), high + TOLERANCE * (1 + np.abs(high))
    if not np.issubdtype(space.dtype, np.integer):
        return None
    least, greatest = np.iinfo(space.dtype).min, np.iinfo(space.dtype).max
    return None if (low == least).all() and (high == greatest).all() else (low, high)
