"""The finished episodes of a replay, read like those of an `EpisodeStore`: for films, dreams, samplers and export.

An episode is listed when its last row is known and its first row is still kept. The latents of the replay are not
among the fields: they are states of a world, not what an episode holds.
"""

from typing import Any

import numpy as np

from oneiro.data.columns import Column
from oneiro.data.episode_reader import EpisodeReader
from oneiro.data.replay import Replay
from oneiro.data.segments import LAST, TERMINAL
from oneiro.errors import OneiroError, nearest


class ReplayEpisodes(EpisodeReader):
    """A view; nothing is copied before it is read."""

    def __init__(self, replay: Replay) -> None:
        self.replay, self.folder, self.capacity = replay, replay.folder, replay.capacity
        self._version = -1
        self._table = np.zeros((0, 5), np.int64)

    def __len__(self) -> int:
        return len(self._episodes())

    def __contains__(self, id: int) -> bool:
        return id in self.ids

    @property
    def version(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Changes with the content, so that samplers know when to count again."""
        return self.replay.version

    @property
    def ids(self) -> np.ndarray:
        """[N] int64, ascending: the order in which they began."""
        return self._episodes()[:, 0].copy()

    @property
    def lengths(self) -> np.ndarray:
        """[N] int64: rows of each episode, in the order of `ids`."""
        return self._episodes()[:, 3].copy()

    @property
    def rows(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Number of rows of all episodes."""
        return int(self._episodes()[:, 3].sum())

    @property
    def nbytes(self) -> int:
        """Size of the replay on the disk, in bytes."""
        return self.replay.nbytes

    @property
    def columns(self) -> dict[str, Column]:
        """Type of every recorded column by stored name."""
        return self.replay.columns

    @property
    def memos(self) -> tuple[str, ...]:
        """None."""
        return ()

    def length(self, id: int) -> int:
        """Rows of an episode."""
        return self._episode(id)[3]

    def info(self, id: int) -> dict[str, Any]:
        """Which stream it was played in, its length in steps, and whether it was cut off."""
        _, stream, _, rows, end = self._episode(id)
        info = {"stream": stream, "length": rows - 1, "truncated": not end & TERMINAL}
        return info if end else info | {"abandoned": True}

    def column(self, field: str) -> Column:
        """Type of a field; OneiroError that names the fields there are."""
        for name in (field, f"obs/{field}"):
            if name in self.columns:
                return self.columns[name]
        if not self.columns:
            raise OneiroError(f"there are no episodes in {self.folder}; train first")
        raise OneiroError(f"the stored episodes have no field {field!r}. {nearest(field, self.fields)}")

    def copy(self, field: str, id: int, start: int, out: np.ndarray) -> None:
        """Fill `out` [n, ...] with rows start .. start + n of a field of an episode."""
        _, stream, first, _, _ = self._episode(id)
        self.replay.copy(field if field in self.columns else f"obs/{field}", stream, first + start, out)

    def terminated(self, id: int, start: int, stop: int) -> np.ndarray:
        """[stop - start] bool; costs no read."""
        _, stream, first, _, _ = self._episode(id)
        return self.replay.marks(stream, first + start, stop - start)[1]

    def forget(self) -> None:
        """Give back the memory of the block cache."""
        self.replay.forget()

    def _episode(self, id: int) -> tuple[int, int, int, int, int]:
        """(id, stream, first row, rows, marks of the last one or 0)."""
        table = self._episodes()
        place = int(np.searchsorted(table[:, 0], id))
        if place == len(table) or table[place, 0] != id:
            span = f"{table[0, 0]} to {table[-1, 0]}" if len(table) else "no finished episode"
            raise OneiroError(f"there is no finished episode {id} in {self.folder}, it holds {span}")
        return tuple(table[place].tolist())  # type: ignore[return-value]

    def _episodes(self) -> np.ndarray:
        """[N, 5] int64, by id: id, stream, first row, rows, marks of the last one."""
        if self._version != self.replay.version:
            tables = [self._stream(index) for index in range(len(self.replay.streams))]
            table = np.concatenate([np.zeros((0, 5), np.int64), *tables])
            self._table, self._version = table[np.argsort(table[:, 0])], self.replay.version
        return self._table

    def _stream(self, index: int) -> np.ndarray:
        stream = self.replay.streams[index]
        firsts = _joined([segment.firsts for segment in stream.segments.values()])
        ends = _joined([segment.ends for segment in stream.segments.values()])
        kind = {row: marks for row, marks in ends.tolist() if marks & LAST}
        stops = [*firsts[1:, 0].tolist(), stream.stop][: len(firsts)]  # a stream may hold nothing yet
        table = [
            (id, index, row, stop - row, kind.get(stop - 1, 0))
            for (row, id), stop in zip(firsts.tolist(), stops, strict=True)
        ]
        if table and stream.stop - 1 not in kind:
            table.pop()  # it is still being played
        return np.array(table, np.int64).reshape(-1, 5)


def _joined(pairs: list[Any]) -> np.ndarray:
    return np.concatenate(
        [np.zeros((0, 2), np.int64), *(np.array(x, np.int64).reshape(-1, 2) for x in pairs)]
    )
