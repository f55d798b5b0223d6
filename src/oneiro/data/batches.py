"""From stretches of stored episodes to a `TimeStep` of tensors [B, T]."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from oneiro.data.episode_reader import EpisodeReader
from oneiro.types import TimeStep


@dataclass(frozen=True)
class Stretch:
    """Rows start .. stop of an episode, and where they go in the batch: row `b`, columns from `t` on."""

    b: int
    t: int
    id: int
    start: int
    stop: int


def choose(store: EpisodeReader, fields: Sequence[str]) -> tuple[str, ...]:
    """The fields to read: the given ones, checked; everything but the memo if none are given."""
    if not fields:
        return tuple(name.removeprefix("obs/") for name in store.columns)
    for field in fields:
        if field != "terminated":
            store.column(field)
    return tuple(field for field in fields if field != "terminated")


def gather(
    store: EpisodeReader, fields: Iterable[str], size: int, length: int, stretches: Iterable[Stretch]
) -> TimeStep:
    """The batch [size, length] made of `stretches`; what none of them covers is padding (zeros, mask False)."""
    arrays = {}
    for name in fields:
        column = store.column(name)
        dtype = np.float32 if np.dtype(column.dtype).kind == "f" else np.dtype(column.dtype)
        arrays[name] = np.zeros((size, length, *column.shape), dtype)
    first, terminated, mask = (np.zeros((size, length), np.bool_) for _ in range(3))
    for x in stretches:
        columns = slice(x.t, x.t + x.stop - x.start)
        mask[x.b, columns] = True
        terminated[x.b, columns] = store.terminated(x.id, x.start, x.stop)
        first[x.b, x.t] = x.start == 0
        for name, array in arrays.items():
            store.copy(name, x.id, x.start, array[x.b, columns])
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    modalities = {name.removeprefix("obs/") for name in store.columns if name.startswith("obs/")}
    return TimeStep(
        obs={name: x for name, x in tensors.items() if name in modalities},
        action=tensors.get("action"),
        reward=tensors.get("reward"),
        is_first=torch.from_numpy(first),
        terminated=torch.from_numpy(terminated),
        mask=torch.from_numpy(mask),
        memo={name: x for name, x in tensors.items() if name in store.memos},
    )
