"""`Replayed`: which stretches of the replay are trained on.

An item is `length` rows that are trained on. They begin anywhere, so they may span the end of an episode.

    begin "latents"   one more row before them is context: its memo is the state they begin with
    begin "blank"     their first row counts as the first of an episode; no latents are kept
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from oneiro.data.memo_file import Memo
from oneiro.data.replay import Pieces, Replay
from oneiro.errors import OneiroError
from oneiro.types import TimeStep


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """Items of `length` rows and their context, every start of every stream equally likely; new rows first, once."""

    size: int = 16  # B, items per batch
    length: int = 64  # T, rows that are trained on
    begin: Literal["latents", "blank"] = (
        "latents"  # from the latents kept with the row before, or as an episode begins
    )
    online: bool = (
        True  # each new stretch of an item's rows is served once before anything is drawn at random
    )

    def __post_init__(self) -> None:
        for name in ("size", "length"):
            if getattr(self, name) < 1:
                raise ValueError(f"Replayed.{name} is {getattr(self, name)}; it must be at least 1")
        if self.begin not in ("latents", "blank"):
            raise ValueError(f"Replayed.begin = {self.begin!r}: choose latents or blank")

    @property
    def context(self) -> int:
        """Rows before those that are trained on, whose latents are needed: 1 or 0."""
        return int(self.begin == "latents")

    def build(self, replay: Replay, seed: int) -> "ReplayedSampler":
        """The sampler over `replay`."""
        return ReplayedSampler(self, replay, seed)


@dataclass(frozen=True, kw_only=True)
class ReplayBatch:
    """What one update is made of."""

    rows: TimeStep
    """[B, T]; `is_first` where an episode really begins, and in column 0 of items that begin blank."""
    context: Memo
    """{name: [B, ...]}: the memo of the row before column 0; {} if the world keeps none, or items begin blank."""
    pieces: Pieces
    """Where the rows are, for `Replay.put_memo`."""


class ReplayedSampler:
    """See `Replayed`. Batch k depends on the seed, on k, on what is stored and on what was served before."""

    def __init__(self, config: Replayed, replay: Replay, seed: int) -> None:
        self.config, self.replay, self.seed = config, replay, seed
        self.drawn = 0
        """Batches drawn so far."""
        self._next = [
            max(config.context, stream.stop) for stream in replay.streams
        ]  # its next new item's start
        self._queue: deque[tuple[int, int]] = deque()
        needed = 2 * max(1, len(replay.streams)) * self.rows
        if replay.capacity < needed:
            raise OneiroError(
                f"an item has {self.rows} rows and there are {len(replay.streams)} streams, but the capacity of the "
                f"replay is {replay.capacity} rows; set data.capacity to at least {needed}, or a shorter batch.length"
            )

    @property
    def rows(self) -> int:
        """Rows of an item, context included."""
        return self.config.context + self.config.length

    @property
    def items(self) -> int:
        """How many starts there are."""
        return int(self._starts().sum())

    def draw(self) -> np.ndarray:
        """(stream, first row, which is the context if there is one) of every item of the next batch, [B, 2] int64."""
        starts = self._starts()
        if not starts.sum():
            raise OneiroError(
                f"no stream of {self.replay.folder} has {self.rows} rows yet; play on before training"
            )
        self._queue_new()
        count = min(self.config.size, len(self._queue))
        served = [self._queue.popleft() for _ in range(count)]
        rng = np.random.default_rng([self.seed, self.drawn])
        place = rng.integers(starts.sum(), size=self.config.size - count)
        ends = np.cumsum(starts)
        stream = np.searchsorted(ends, place, side="right")
        row = place - (ends - starts)[stream] + self.replay.spans[stream, 0]
        self.drawn += 1
        return np.concatenate([np.array(served, np.int64).reshape(-1, 2), np.stack([stream, row], 1)])

    def holds(self, at: np.ndarray) -> np.ndarray:
        """[B] bool: all rows of the items `at` [B, 2] are there."""
        first, stop = self.replay.spans[at[:, 0]].T
        return (first <= at[:, 1]) & (at[:, 1] + self.rows <= stop)

    def state(self) -> dict[str, Any]:
        """JSON for a checkpoint."""
        return {"drawn": self.drawn, "next": self._next, "queue": self.replay.share.outside(self._queue)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`, which is about all streams."""
        share = self.replay.share
        self.drawn, self._next = state["drawn"], share.of(state["next"])
        self._queue = deque(share.inside(state["queue"]))

    def serve_first(self, items: list[tuple[int, int]]) -> None:
        """Put items in front of those that wait to be served once."""
        if self.config.online:
            self._queue.extendleft(reversed(items))

    def _starts(self) -> np.ndarray:
        """[S] starts of every stream."""
        spans = self.replay.spans
        return np.maximum(spans[:, 1] - spans[:, 0] - self.rows + 1, 0)

    def _queue_new(self) -> None:
        """Add the items that have become complete, those that began first in front; forget dropped ones.

        The official replay begins them at rows 1, 1 + rows, 1 + 2 rows, ... of a stream, without context at 0, rows,
        2 rows, ...; so do we.
        """
        if not self.config.online:
            return
        found = []
        for stream, (first, stop) in enumerate(self.replay.spans.tolist()):
            if stream == len(self._next):
                self._next.append(self.config.context)
            while self._next[stream] + self.rows <= stop:
                if self._next[stream] >= first:
                    found.append((self._next[stream], stream))
                self._next[stream] += self.rows
        self._queue += [(stream, row) for row, stream in sorted(found)]
        if self._queue:
            queue = np.array(self._queue, np.int64)
            self._queue = deque((stream, row) for stream, row in queue[self.holds(queue)].tolist())
