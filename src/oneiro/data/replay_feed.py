"""`Feed`: batches of the replay, read one ahead by a thread that also writes latents back.

    take k:   rows k (read while update k - 1 ran), memo of its context, if it has one (after the latents of update
              k - 1 were written)
              draw and begin to read k + 1

The thread does one thing after the other, so what a batch holds does not depend on how fast anything is.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from oneiro.data.memo_file import Memo
from oneiro.data.replay import Pieces, Replay
from oneiro.data.replayed import ReplayBatch, Replayed
from oneiro.data.share import interleave
from oneiro.types import TimeStep


class Feed:
    """Takes batches of `config` from `replay`; append rows only from the thread that calls `take`."""

    def __init__(self, config: Replayed, replay: Replay, seed: int) -> None:
        self.replay, self.sampler = replay, config.build(replay, seed)
        self._thread = ThreadPoolExecutor(1, "replay")
        self._ahead: _Ahead | None = None
        self._written: Future[None] | None = None

    def take(self) -> ReplayBatch:
        """The next batch."""
        ahead = self._ahead or self._begin(self.sampler.draw())
        rows = ahead.reading.result()
        self.settle()
        memo: Memo = {}
        if ahead.context is None:
            rows = _begun(rows)
        else:
            memo = {name: x[:, 0] for name, x in self.replay.memo(ahead.context).items()}
        self._begin(self.sampler.draw())
        return ReplayBatch(rows=rows, context=memo, pieces=ahead.pieces)

    def write_back(self, batch: ReplayBatch, memo: Memo) -> None:
        """New latents {name: [B, T, ...]} of the rows of `batch`; the tensors must not change any more."""
        self.settle()
        self._written = self._thread.submit(self.replay.put_memo, batch.pieces, memo)

    def settle(self) -> None:
        """Wait until the latents are written."""
        if self._written is not None:
            self._written.result()
            self._written = None

    def state(self) -> dict[str, Any]:
        """JSON for a checkpoint; call `settle` before."""
        ahead = self._ahead and self.replay.share.outside(self._ahead.at.tolist())
        return {"sampler": self.sampler.state(), "ahead": ahead}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`, which is about all streams; a batch of which rows were lost since is drawn anew.

        With another number of processes the items that had been drawn are dealt out to them and served first.
        """
        self.sampler.load_state(state["sampler"])
        items = self.replay.share.inside(state["ahead"] or [])
        if len(items) != self.sampler.config.size:
            self.sampler.serve_first(items)
        elif self.sampler.holds(at := np.array(items, np.int64)).all():
            self._begin(at)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _begin(self, at: np.ndarray) -> "_Ahead":
        """Begin to read the items `at`."""
        config = self.sampler.config
        context = self.replay.locate(at, 1) if config.context else None
        pieces = self.replay.locate(at + np.array([0, config.context]), config.length)
        reading = self._thread.submit(self.replay.read, pieces)
        self._ahead = _Ahead(at, context, pieces, reading)
        return self._ahead


def _begun(rows: TimeStep) -> TimeStep:
    """Rows [B, T] of which the first column counts as the beginning of an episode."""
    first = rows.is_first.clone()
    first[:, 0] = True
    return replace(rows, is_first=first)


def joined(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`Feed.state` of all streams from that of every share."""
    samplers = [state["sampler"] for state in states]
    ahead = [state["ahead"] for state in states if state["ahead"] is not None]
    sampler = {
        "drawn": max(found["drawn"] for found in samplers),
        "next": interleave([found["next"] for found in samplers]),
        "queue": [item for found in samplers for item in found["queue"]],
    }
    return {"sampler": sampler, "ahead": [item for items in ahead for item in items] if ahead else None}


@dataclass
class _Ahead:
    """A batch that is being read."""

    at: np.ndarray
    context: Pieces | None
    pieces: Pieces
    reading: Future[TimeStep]
