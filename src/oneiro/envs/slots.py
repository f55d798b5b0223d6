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
            self._envs[slot] = self.config.env()
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
        space = self._envs[slot].observation_space
        assert isinstance(space, gymnasium.spaces.Dict)
        if not isinstance(obs, dict) or obs.keys() != space.keys():
            found = sorted(obs) if isinstance(obs, dict) else type(obs).__name__
            raise self._error(slot, f"the observation is {found}, its space has {sorted(space.keys())}")
        for key, part in space.items():
            if complaint := fault(obs[key], part):
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


def fault(value: Any, space: gymnasium.Space) -> str:
    """What is wrong with `value` as an element of `space`: "is NaN", ...; "" if nothing."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return "" if space.contains(value) else f"is {value!r}, not in {space}"
    array = np.asarray(value)
    if array.shape != space.shape or array.dtype != space.dtype:
        return f"is {array.dtype} {list(array.shape)}, its space says {space.dtype} {list(space.shape or ())}"
    if not np.issubdtype(array.dtype, np.floating):
        return ""  # the integers of a type fill its usual bounds; a check would cost more than it finds
    if not np.isfinite(array).all():
        return f"is {'NaN' if np.isnan(array).any() else 'infinite'}"
    if isinstance(space, gymnasium.spaces.Box):
        low, high = space.low, space.high
        if (array < low - TOLERANCE * (1 + np.abs(low))).any():
            return f"is {array.min():g}, below its space's bounds"
        if (array > high + TOLERANCE * (1 + np.abs(high))).any():
            return f"is {array.max():g}, above its space's bounds"
    return ""
