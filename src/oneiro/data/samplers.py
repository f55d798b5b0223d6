"""Samplers: which stored rows make batch k.

Batch k depends on the seed, on k and on what is stored, and on nothing else: a run that resumes at update k goes
on with exactly the batches it would have had. Random numbers come from a generator seeded with (seed, epoch) or
(seed, k). Episodes count in the order of their ids, whatever order they were finished in.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from oneiro.data.batches import Stretch, choose, gather
from oneiro.data.episode_reader import EpisodeReader
from oneiro.errors import OneiroError
from oneiro.types import TimeStep


class Sampler(ABC):
    """Batches from a store; built by a sampler's config."""

    def __init__(self, store: EpisodeReader, fields: tuple[str, ...], seed: int) -> None:
        self.store, self.seed = store, seed
        self._asked = fields
        self._fields: tuple[str, ...] = ()
        self._version = -1
        self._refresh()

    @property
    def batches_per_epoch(self) -> int:
        """Batches in which everything stored comes up once, at least 1."""
        self._refresh()
        return self._count()

    def batch(self, k: int) -> TimeStep:
        """Batch k = 0, 1, ..., tensors [B, T]."""
        self._refresh()
        return self._batch(k)

    def starts_epoch(self, k: int) -> bool:
        """True if batch k does not continue batch k - 1, so that carried state must be dropped."""
        return True

    def _refresh(self) -> None:
        """Count again if episodes came, went or were given a memo."""
        if self._version == self.store.version:
            return
        if not len(self.store):
            raise OneiroError(f"there are no episodes in {self.store.folder}; collect some before training")
        self._fields = choose(self.store, self._asked)
        self._index(self.store.ids, self.store.lengths)
        self._version = self.store.version

    @abstractmethod
    def _index(self, ids: np.ndarray, lengths: np.ndarray) -> None: ...

    @abstractmethod
    def _count(self) -> int: ...

    @abstractmethod
    def _batch(self, k: int) -> TimeStep: ...


class SamplerConfig(ABC):
    """Which batches; built over a store it is a sampler."""

    @property
    def rows_needed(self) -> int:
        """Rows that must be stored for a batch."""
        return 1

    @abstractmethod
    def build(self, store: EpisodeReader, seed: int) -> Sampler:
        """The sampler over `store`."""

    def require_capacity(self, capacity: int) -> None:
        """OneiroError if a store of so many rows can never fill a batch."""
        if capacity < self.rows_needed:
            raise OneiroError(
                f"a batch of {type(self).__name__} needs {self.rows_needed} rows but the capacity of the store is "
                f"{capacity}; set data.capacity to at least that, or use shorter windows"
            )


@dataclass(frozen=True, kw_only=True)
class Frames(SamplerConfig):
    """Single rows [B, 1]; each row of the store once per epoch, in random order.

    Rows are shuffled in two steps, so that a block of frames need not be unpacked for every frame of it: runs of
    8 rows are spread over pools at random, then the rows of a pool are mixed. Batches straddle epochs.
    """

    size: int = 100
    """B, rows per batch."""
    fields: tuple[str, ...] = ("image",)
    """What to read; () is everything but the memo."""
    pool: int = 8192
    """Rows that are mixed with one another; 1 MiB of `data.ram` serves 85 frames of 3 x 64 x 64."""

    def __post_init__(self) -> None:
        _require_positive(self, "size", "pool")

    def build(self, store: EpisodeReader, seed: int) -> "FrameSampler":
        """The sampler over `store`."""
        return FrameSampler(self, store, seed)


class FrameSampler(Sampler):
    """See `Frames`."""

    RUN = 8

    def __init__(self, config: Frames, store: EpisodeReader, seed: int) -> None:
        self.config = config
        super().__init__(store, config.fields, seed)

    def _index(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        self._ids = ids
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        runs = -(-lengths // self.RUN)
        row = np.arange(self._starts[-1]) - np.repeat(self._starts[:-1], lengths)
        self._run = (np.repeat(np.cumsum(runs) - runs, lengths) + row // self.RUN).astype(np.int32)
        self._orders: dict[int, np.ndarray] = {}

    def _count(self) -> int:
        return max(1, int(self._starts[-1]) // self.config.size)

    def _order(self, epoch: int) -> np.ndarray:
        """[rows] int32: all rows, shuffled. The orders of two epochs are kept, as a batch may need both."""
        if epoch not in self._orders:
            rng = np.random.default_rng([self.seed, epoch])
            pool = rng.permutation(int(self._run[-1]) + 1) * self.RUN // self.config.pool
            key = pool[self._run] + rng.random(len(self._run))
            self._orders = {e: order for e, order in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = np.argsort(key, kind="stable").astype(np.int32)
        return self._orders[epoch]

    def _batch(self, k: int) -> TimeStep:
        rows = np.array(
            [
                self._order(epoch)[place]
                for epoch, place in _places(k, self.config.size, int(self._starts[-1]))
            ]
        )
        episode = np.searchsorted(self._starts, rows, side="right") - 1
        row = rows - self._starts[episode]
        stretches = [
            Stretch(b, 0, int(self._ids[episode[b]]), int(row[b]), int(row[b]) + 1) for b in range(len(rows))
        ]
        return gather(self.store, self._fields, self.config.size, 1, stretches)


@dataclass(frozen=True, kw_only=True)
class Windows(SamplerConfig):
    """Windows of `length` rows [B, T] inside one episode; shorter episodes are padded (mask False)."""

    size: int = 64
    """B, windows per batch."""
    length: int = 128
    """T, rows per window."""
    at: Literal["anywhere", "start"] = "anywhere"
    """"anywhere": every possible window equally likely, independently drawn. "start": the first rows of an
    episode, each episode once per epoch."""
    pad: Literal["right", "left"] = "right"
    """The side on which shorter episodes are filled up."""
    min_length: int = 1
    """Episodes with fewer rows are left out."""
    fields: tuple[str, ...] = ()
    """What to read; () is everything but the memo."""

    def __post_init__(self) -> None:
        _require_positive(self, "size", "length", "min_length")
        for name, known in (("at", ("anywhere", "start")), ("pad", ("right", "left"))):
            if getattr(self, name) not in known:
                raise ValueError(f"Windows.{name} is {getattr(self, name)!r}; use one of {', '.join(known)}")

    @property
    def rows_needed(self) -> int:
        """One window."""
        return self.length

    def build(self, store: EpisodeReader, seed: int) -> "WindowSampler":
        """The sampler over `store`."""
        return WindowSampler(self, store, seed)


class WindowSampler(Sampler):
    """See `Windows`."""

    def __init__(self, config: Windows, store: EpisodeReader, seed: int) -> None:
        self.config = config
        config.require_capacity(store.capacity)
        super().__init__(store, config.fields, seed)

    def _index(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        long_enough = lengths >= self.config.min_length
        if not long_enough.any():
            raise OneiroError(
                f"none of the {len(ids)} episodes has {self.config.min_length} rows (the longest has "
                f"{lengths.max()}); set a smaller min_length or collect longer episodes"
            )
        self._ids, self._lengths = ids[long_enough], lengths[long_enough]
        self._positions = np.cumsum(np.maximum(self._lengths - self.config.length + 1, 1))

    def _count(self) -> int:
        amount = (
            len(self._ids) if self.config.at == "start" else int(self._lengths.sum()) // self.config.length
        )
        return max(1, amount // self.config.size)

    def _windows(self, k: int) -> Iterator[tuple[int, int]]:
        """(episode, first row) of each window of batch k."""
        if self.config.at == "start":
            for epoch, place in _places(k, self.config.size, len(self._ids)):
                yield int(self._shuffled(epoch)[place]), 0
            return
        rng = np.random.default_rng([self.seed, k])
        position = rng.integers(self._positions[-1], size=self.config.size)
        episode = np.searchsorted(self._positions, position, side="right")
        before = np.concatenate([[0], self._positions])[episode]
        yield from zip(episode.tolist(), (position - before).tolist(), strict=True)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self._ids))

    def _batch(self, k: int) -> TimeStep:
        stretches = []
        for b, (episode, start) in enumerate(self._windows(k)):
            rows = min(self.config.length, int(self._lengths[episode]))
            t = self.config.length - rows if self.config.pad == "left" else 0
            stretches.append(Stretch(b, t, int(self._ids[episode]), start, start + rows))
        return gather(self.store, self._fields, self.config.size, self.config.length, stretches)


@dataclass(frozen=True, kw_only=True)
class Streams(SamplerConfig):
    """All episodes in random order, joined end to end and cut into `size` parallel streams of equal length.

    Batch k is the next piece of `length` rows of every stream, so that a recurrent state can be carried on. What
    does not fill a last piece is left out; the next epoch shuffles again.
    """

    size: int = 100
    """B, parallel streams."""
    length: int = 500
    """T, rows per piece."""
    overlap: int = 0
    """Rows that a piece repeats of the one before; with 1 no transition is lost at the cut."""
    fields: tuple[str, ...] = ()
    """What to read; () is everything but the memo."""

    def __post_init__(self) -> None:
        _require_positive(self, "size", "length")
        if not 0 <= self.overlap < self.length:
            raise ValueError(f"Streams.overlap is {self.overlap}; it must be from 0 to length - 1")

    @property
    def rows_needed(self) -> int:
        """One piece of every stream."""
        return self.size * self.length

    def build(self, store: EpisodeReader, seed: int) -> "StreamSampler":
        """The sampler over `store`."""
        return StreamSampler(self, store, seed)


class StreamSampler(Sampler):
    """See `Streams`."""

    def __init__(self, config: Streams, store: EpisodeReader, seed: int) -> None:
        self.config = config
        config.require_capacity(store.capacity)
        super().__init__(store, config.fields, seed)

    def starts_epoch(self, k: int) -> bool:
        """True if batch k begins new streams, so that carried state must be dropped."""
        return k % self.batches_per_epoch == 0

    def _index(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        self._ids, self._lengths = ids, lengths
        self._stream = int(lengths.sum()) // self.config.size
        if self._stream < self.config.length:
            raise OneiroError(
                f"{int(lengths.sum())} stored rows do not fill one piece of {self.config.size} streams x "
                f"{self.config.length} rows; collect more, or set a smaller size or length"
            )

    def _count(self) -> int:
        return 1 + (self._stream - self.config.length) // (self.config.length - self.config.overlap)

    def _batch(self, k: int) -> TimeStep:
        epoch, piece = divmod(k, self._count())
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self._ids))
        ends = np.cumsum(self._lengths[order])  # in the joined sequence
        stretches = []
        for b in range(self.config.size):
            row = begin = b * self._stream + piece * (self.config.length - self.config.overlap)
            place = int(np.searchsorted(ends, begin, side="right"))
            while row < begin + self.config.length:
                episode = order[place]
                start = row - int(ends[place] - self._lengths[episode])
                rows = min(int(ends[place]), begin + self.config.length) - row
                stretches.append(Stretch(b, row - begin, int(self._ids[episode]), start, start + rows))
                row, place = row + rows, place + 1
        return gather(self.store, self._fields, self.config.size, self.config.length, stretches)


def prefetch(sampler: Sampler, start: int, stop: int, ahead: int = 2) -> Iterator[TimeStep]:
    """Batches start .. stop in order; a thread reads up to `ahead` of them while the caller computes.

    The store must not be written to meanwhile. An error while reading is raised at the batch that it concerns.
    """
    thread = ThreadPoolExecutor(1, "prefetch")
    waiting: deque = deque()
    try:
        for k in range(start, stop):
            waiting.append(thread.submit(sampler.batch, k))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)


def _places(k: int, size: int, total: int) -> list[tuple[int, int]]:
    """(epoch, place in its order) of the `size` items of batch k, when each epoch has `total`."""
    return [divmod(place, total) for place in range(k * size, (k + 1) * size)]


def _require_positive(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(
                f"{type(config).__name__}.{name} is {getattr(config, name)}; it must be at least 1"
            )
