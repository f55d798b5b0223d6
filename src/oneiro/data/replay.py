"""`Replay`: continuing streams of arrival rows, one per environment slot, that are sampled while they grow.

    append --> growing segment of each stream (memory) --full, flush--> streams/0003/00000012-1024.rows
                       |                                                          |
    read <-------------+---------------- block cache (memory) <-------------------+
    memo, put_memo <---+---------------------------------------> streams/0003/00000012.memo

A stream is what one slot lived through, episode after episode, without a gap. A row can be sampled as soon as it is
appended. Beside each row a world may keep its latents (`memo`), which can be replaced. What is in memory: the
growing segments, the block cache, a few kB per full segment, and 16 bytes for each end of an episode.
"""

import sys
import warnings
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import torch

from oneiro.data.cache import BlockCache
from oneiro.data.columns import Column
from oneiro.data.memo_file import Memo, MemoType
from oneiro.data.segments import LAST, TERMINAL, Segment, Stream
from oneiro.data.share import Share, interleave
from oneiro.data.stream_folder import StreamFolder
from oneiro.errors import OneiroError
from oneiro.types import TimeStep

SMALLEST_RAM = 4 * 1024 * 1024
Pieces = list[list[tuple[Segment, int, int]]]
"""For each item of a batch the rows that make it up: (segment, from row, to row)."""


class Replay:
    """Streams in one folder. One process may write; the folder's owner (the run) sees to that.

    `ram` bounds the memory in bytes, `capacity` the number of rows: beyond it the oldest segments of all streams are
    dropped. `streams` may be larger than what the folder holds: new ones are added. After opening, the next row of
    every stream begins an episode; the one that was cut off counts as truncated. With mode "r" nothing is touched.
    Several processes may write to one folder if each has a `share` of the streams; `ram` and `capacity` are for all.
    `env` (JSON) says which environment the rows are of; a folder of another one is refused.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        streams: int = 0,
        ram: int = 1 << 30,
        capacity: int = sys.maxsize,
        compress: bool = True,
        mode: Literal["a", "r"] = "a",
        share: Share | None = None,
        env: Mapping[str, Any] | None = None,
    ) -> None:
        self.share = share or Share()
        ram, capacity = ram // self.share.count, capacity // self.share.count
        if ram < SMALLEST_RAM:
            raise OneiroError(
                f"ram is {ram} bytes; the replay of a process needs at least {SMALLEST_RAM}; set data.ram"
            )
        self.folder, self.capacity, self.mode = Path(folder), capacity, mode
        self._files = StreamFolder(
            self.folder,
            streams,
            ram=ram,
            capacity=capacity,
            compress=compress,
            is_writable=mode == "a",
            share=self.share,
            env=env,
        )
        self._cache = BlockCache(ram // 2)
        self.version = 0
        """Changes with the content."""
        self.total = sum(stream.stop for stream in self.streams)
        """Rows ever appended; where others write too, as if they had appended as many."""
        self.begun = max((stream.last_id() for stream in self.streams), default=-1) + 1
        """Episodes ever begun: the id of the next one."""
        self._lock = Lock()
        self._order: deque[Segment] = deque()
        self._reorder()

    # -- content ---------------------------------------------------------------------------------------------

    @property
    def streams(self) -> list[Stream]:
        """The streams, in the order of the slots."""
        return self._files.streams

    @property
    def columns(self) -> dict[str, Column]:
        """Type of every column by stored name ("action", "reward", "obs/image", ...); empty before the first row."""
        return self._files.columns

    @property
    def memo_type(self) -> MemoType | None:
        """Names, types and shapes of the latents; None before the first ones."""
        return self._files.memo_type

    @property
    def rows(self) -> int:
        """Rows that are kept."""
        return sum(stream.stop - stream.first for stream in self.streams)

    @property
    def spans(self) -> np.ndarray:
        """[S, 2] int64: first row that is kept, and one more than the newest, of every stream."""
        return np.array([(stream.first, stream.stop) for stream in self.streams], np.int64).reshape(-1, 2)

    @property
    def nbytes(self) -> int:
        """Bytes on the disk, latents included."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    # -- reading ---------------------------------------------------------------------------------------------

    def locate(self, at: np.ndarray, length: int) -> Pieces:
        """Where `length` rows from each (stream, row) of `at` [B, 2] on are; they stay readable for two flushes.

        Call it from the thread that appends; `read`, `memo` and `put_memo` take its answer in any thread.
        """
        return [self.streams[stream].pieces(row, length) for stream, row in at.tolist()]

    def read(self, pieces: Pieces, fields: Iterable[str] = ()) -> TimeStep:
        """Rows [B, T] without memo; `fields` picks modalities (default: all)."""
        lead = (len(pieces), _length(pieces))
        wanted = {f"obs/{name}" for name in fields}
        names = [k for k in self.columns if k in wanted or not wanted or not k.startswith("obs/")]
        arrays = {k: np.empty((*lead, *self.columns[k].shape), self.columns[k].dtype) for k in names}
        first, terminated = np.zeros(lead, np.bool_), np.zeros(lead, np.bool_)
        for b, t, segment, start, stop in _walk(pieces):
            columns = slice(t, t + stop - start)
            segment.mark(start, first[b, columns], terminated[b, columns])
            for name, array in arrays.items():
                segment.copy(self._cache, name, start, array[b, columns])
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return TimeStep(
            obs={name.removeprefix("obs/"): x for name, x in tensors.items() if name.startswith("obs/")},
            action=tensors["action"],
            reward=tensors["reward"],
            is_first=torch.from_numpy(first),
            terminated=torch.from_numpy(terminated),
            mask=torch.ones(lead, dtype=torch.bool),
        )

    def memo(self, pieces: Pieces) -> Memo:
        """Latents {name: [B, T, ...]}, zeros where none were stored; {} if there are none at all."""
        kind = self.memo_type
        if kind is None:
            return {}
        records = np.empty((len(pieces), _length(pieces), kind.nbytes), np.uint8)
        for b, t, segment, start, stop in _walk(pieces):
            with self._lock:
                segment.get_memo(start, records[b, t : t + stop - start])
        memo = kind.unpack(records.reshape(-1, kind.nbytes))
        return {name: x.unflatten(0, records.shape[:2]) for name, x in memo.items()}

    def copy(self, name: str, stream: int, row: int, out: np.ndarray) -> None:
        """Fill `out` [n, ...] with rows row .. row + n of a column, by stored name."""
        done = 0
        for segment, start, stop in self.streams[stream].pieces(row, len(out)):
            segment.copy(self._cache, name, start, out[done : done + stop - start])
            done += stop - start

    def marks(self, stream: int, row: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """is_first and terminated, each [count] bool, of rows row .. row + count; costs no read."""
        first, terminated = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        for segment, start, stop in self.streams[stream].pieces(row, count):
            place = slice(start - row, stop - row)
            segment.mark(start, first[place], terminated[place])
        return first, terminated

    # -- writing ---------------------------------------------------------------------------------------------

    def append(
        self,
        rows: Mapping[str, np.ndarray],
        is_first: np.ndarray,
        terminated: np.ndarray,
        last: np.ndarray,
        memo: Memo | None = None,
        where: np.ndarray | None = None,
        *,
        slots: np.ndarray | None = None,
        ids: np.ndarray | None = None,
    ) -> None:
        """One row for every stream, or for those of `where` [S] bool; in the others an episode was lost.

        `rows` {"obs/image": [S, ...], "action": [S, A], "reward": [S]} in the types of the first call. `last` marks the
        last row of an episode; `terminated` one where it ended for good, or is to be learnt so though it goes on.
        Episodes that begin get the ids `begun`, `begun` + 1, ... in the order of the streams (with a share of N
        processes every N-th), or those of `ids` [S]. With `slots` [S] the rows are of these streams, and the others
        stay as they are. Durable after `flush`.
        """
        self._require_writable()
        slots = np.arange(len(self.streams)) if slots is None else slots
        self._files.fit(rows, memo, len(slots))
        where = np.ones(len(slots), np.bool_) if where is None else where
        streams = [self.streams[slot] for slot in slots.tolist()]
        arrived = np.flatnonzero(where).tolist()
        _check_ends([(streams[at], bool(is_first[at])) for at in arrived])
        for at in arrived:
            stream = streams[at]
            end = TERMINAL * bool(terminated[at]) + LAST * bool(last[at])
            id = self.begun if ids is None else int(ids[at])
            self._growing(stream).add(rows, at, id if is_first[at] else None, end)
            stream.stop += 1
            stream.must_begin = bool(last[at])
            if is_first[at]:
                self.begun = max(self.begun, id + self.share.count)
            self.total += self.share.count
        self.cut_off(slots[~where])
        if memo:
            self._put_newest(memo, [(at, streams[at]) for at in arrived])
        for stream in self.streams:
            newest = stream.last
            if newest is not None and newest.is_growing and newest.rows == newest.room:
                with (
                    self._lock
                ):  # latents that a thread replaces meanwhile get into the file, before or after
                    newest.seal(*self._files.write(newest), self.columns)
        self._enforce_capacity()
        self.version += 1

    def cut_off(self, slots: Iterable[int]) -> None:
        """The episodes in these streams were lost: the next row begins another one."""
        for slot in slots:
            self.streams[slot].must_begin = True

    def put_memo(self, pieces: Pieces, memo: Memo) -> None:
        """Replace the latents of rows: {name: [B, T, ...]}. Rows that were dropped meanwhile are passed over."""
        self._require_writable()
        flat = {name: x.flatten(0, 1) for name, x in memo.items()}
        records = self._files.require_memo(flat).pack(flat).reshape(len(pieces), _length(pieces), -1)
        for b, t, segment, start, stop in _walk(pieces):
            if not segment.is_dropped:
                with self._lock:
                    segment.put_memo(start, records[b, t : t + stop - start])

    def flush(self) -> None:
        """Make every row so far durable. Files given up before the flush before this one are deleted."""
        self._require_writable()
        with self._lock:
            self._files.flush()

    def state(self) -> dict[str, Any]:
        """Where the streams begin and end: JSON for a checkpoint, which needs a `flush` before it.

        Of a share, it is to be `joined` with that of the others.
        """
        return {"spans": self.spans.tolist(), "begun": self.begun, "total": self.total}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Forget every row that came after `state` (of all streams) was taken; None forgets everything."""
        self._require_writable()
        spans = self.share.of(state["spans"]) if state else []
        if len(spans) > len(self.streams):
            raise self._files.too_few(len(spans), len(self.streams))
        for index, stream in enumerate(self.streams):
            first, stop = spans[index] if index < len(spans) else (0, 0)
            if stream.stop < stop:
                warnings.warn(
                    f"{stream.folder} ends at row {stream.stop}, but the checkpoint was saved at row {stop}; the rows "
                    "between are lost, and the run goes on without them",
                    stacklevel=2,
                )
            self._files.cut(stream, stop)
            for segment in [s for s in stream.segments.values() if s.stop <= first]:
                self._files.drop(segment)
            stream.must_begin = True
        self.begun, self.total = (state["begun"], state["total"]) if state else (0, 0)
        self.begun += self.share.index
        self._reorder()
        self._enforce_capacity()
        self._cache.clear()
        self.version += 1

    def forget(self) -> None:
        """Give back the memory of the block cache; what is read later is unpacked again."""
        self._cache.clear()

    def close(self) -> None:
        """Flush, if this replay may write."""
        if self.mode == "a":
            self.flush()

    def __enter__(self) -> "Replay":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside ----------------------------------------------------------------------------------------------

    def _growing(self, stream: Stream) -> Segment:
        """The segment that takes the next row of a stream."""
        segment = stream.segments.get(stream.number(stream.stop))
        if segment is None:
            segment = stream.begin(self.total)
            self._order.append(segment)
        if not segment.is_growing:
            segment.grow(self.columns, self._files.record)
        return segment

    def _reorder(self) -> None:
        segments = [s for stream in self.streams for s in stream.segments.values()]
        self._order = deque(sorted(segments, key=lambda s: (s.born, s.stream)))

    def _enforce_capacity(self) -> None:
        rows = self.rows
        while rows > self.capacity:
            oldest = next((segment for segment in self._order if not segment.is_growing), None)
            if oldest is None:
                return
            self._order.remove(oldest)
            rows -= oldest.rows
            self._files.drop(oldest)

    def _put_newest(self, memo: Memo, where: Iterable[tuple[int, Stream]]) -> None:
        """Latents of the rows just appended: (place in `memo`, stream)."""
        records = self._files.require_memo(memo).pack(memo)
        for at, stream in where:
            segment = stream.last
            assert segment is not None
            with self._lock:
                segment.put_memo(segment.stop - 1, records[at : at + 1])

    def _require_writable(self) -> None:
        if self.mode == "r":
            raise OneiroError(f'{self.folder} was opened for reading; open it with mode="a" to write')


def joined(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`Replay.state` of all streams from that of every share."""
    return {
        "spans": interleave([state["spans"] for state in states]),
        "begun": max(state["begun"] for state in states),
        "total": max(state["total"] for state in states),
    }


def _check_ends(rows: Iterable[tuple[Stream, bool]]) -> None:
    """Raise ValueError unless an episode begins (is_first) where the one before it has ended, and only there."""
    for stream, is_first in rows:
        if stream.must_begin != is_first:
            before = "has ended" if stream.must_begin else "goes on"
            raise ValueError(
                f"row {stream.stop} of stream {int(stream.folder.name)} has is_first {is_first}, but the episode "
                f"before it {before}"
            )


def _length(pieces: Pieces) -> int:
    return sum(stop - start for _, start, stop in pieces[0])


def _walk(pieces: Pieces) -> Iterable[tuple[int, int, Segment, int, int]]:
    """(b, t, segment, from row, to row) of every piece: it belongs in row b of the batch from column t on."""
    for b, item in enumerate(pieces):
        t = 0
        for segment, start, stop in item:
            yield b, t, segment, start, stop
            t += stop - start
