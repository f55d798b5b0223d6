"""The folder of a replay: its streams, the types of their columns, and which files are needed.

    replay.json              rows per segment, columns, memo, environment
    streams/0003/...         see `segments`

A file that is superseded or dropped is deleted at the flush after the next one: until then a checkpoint may need it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from oneiro.data.chunks import Entry, sync_folder, write_durably
from oneiro.data.columns import Column
from oneiro.data.memo_file import Memo, MemoType
from oneiro.data.segments import Segment, Stream
from oneiro.data.share import Share
from oneiro.errors import OneiroError

FORMAT = 1
LARGEST, SMALLEST = 1024, 16
"""Rows of a segment."""


class StreamFolder:
    """Streams and their files. `count`: how many streams there must be (0: those that are found).

    A process may own a `share` of them: then `ram` and `capacity` are its own, and it touches no other files.
    """

    def __init__(
        self,
        folder: Path,
        count: int,
        *,
        ram: int,
        capacity: int,
        compress: bool,
        is_writable: bool,
        share: Share,
        env: Mapping[str, Any] | None = None,
    ) -> None:
        self.env = env
        """What says which environment the rows are of, JSON; None if nobody has said it."""
        self.folder, self.ram, self.capacity, self.compress = folder, ram, capacity, compress
        self.share = share
        self.columns: dict[str, Column] = {}
        self.memo_type: MemoType | None = None
        self.streams: list[Stream] = []
        self.size = 0
        """Rows of a full segment; 0 before the first row."""
        self._note, self._parts = folder / "replay.json", folder / "streams"
        self._garbage: list[Path] = []  # since the last flush
        self._spared: list[Path] = []  # before it
        self._unneeded: list[Path] = []  # before that: deleted at the end of the flush
        if is_writable:
            self._parts.mkdir(parents=True, exist_ok=True)
        elif not self._note.exists():
            raise OneiroError(f"{folder} holds no replay; train first or check the path")
        self._load(count, is_writable)

    @property
    def record(self) -> int:
        """Bytes of latents beside every row."""
        return self.memo_type.nbytes if self.memo_type else 0

    def fit(self, rows: Mapping[str, np.ndarray], memo: Memo | None, number: int) -> None:
        """Compare `number` rows with the columns; the first rows and latents decide them, and the size of segments."""
        if {len(array) for array in rows.values()} != {number}:
            lengths = sorted({len(array) for array in rows.values()})
            raise ValueError(f"rows come for {lengths} streams, there are {number}")
        count = len(self.streams)
        if self.columns:
            if rows.keys() != self.columns.keys() or not all(
                self.columns[name].holds(array) for name, array in rows.items()
            ):
                raise self._other_columns(rows)
            return
        columns = {name: Column.of(array, self.compress) for name, array in sorted(rows.items())}
        per_row = sum(array[0].nbytes for array in rows.values()) + (MemoType.of(memo).nbytes if memo else 0)
        size = min(self.ram // 4 // (count * per_row), self.capacity // (4 * count), LARGEST)
        if size < SMALLEST:
            raise self._too_small(count, per_row, SMALLEST, 4)
        self.size, self.columns = size, columns
        self.streams = [Stream(stream.folder, size) for stream in self.streams]
        for stream in self.streams:
            stream.folder.mkdir(exist_ok=True)
        self._save_note()

    def require_memo(self, memo: Memo) -> MemoType:
        """The type of these latents [N, ...]; the first ones decide it, others must be the same."""
        kind = MemoType.of(memo)
        if self.memo_type is None:
            self.memo_type = kind
            self._save_note()
        if kind != self.memo_type:
            raise OneiroError(
                f"the world keeps {kind} beside every row, but {self.folder} holds {self.memo_type}: it was filled "
                "by a world of another kind or size; use another folder"
            )
        return self.memo_type

    def write(self, segment: Segment) -> tuple[Path, Entry]:
        """Make a growing segment a file; the one before is superseded."""
        before = segment.chunk
        path, entry = segment.write(self.columns)
        if before is not None and before != path:
            self._garbage.append(before)
        needed = (path, segment.memo)  # files of these names may have been given up before
        for waiting in (self._garbage, self._spared, self._unneeded):
            waiting[:] = [file for file in waiting if file not in needed]
        segment.chunk = path
        return path, entry

    def flush(self) -> None:
        """Make every row durable, and delete what was not needed at the flush before either."""
        self._unneeded, self._spared, self._garbage = self._spared, self._garbage, []
        for stream in self.streams:
            last = stream.last
            if last is not None and last.is_growing:
                self.write(last) if last.written < last.stop else last.write_memo()
        for path in self._unneeded:
            path.unlink(missing_ok=True)
        self._unneeded = []
        if self.columns:
            sync_folder(self._parts)

    def cut(self, stream: Stream, stop: int) -> None:
        """Forget the rows of a stream from `stop` on, on the disk too."""
        for segment in stream.cut(stop):
            segment.is_dropped = True
            segment.memo.unlink(missing_ok=True)
            if segment.chunk is not None:
                segment.chunk.unlink(missing_ok=True)
        last = stream.last
        if last is not None and last.stop > stop:
            last.grow(self.columns, self.record)
            last.cut(stop)
            longer, last.chunk = last.chunk, None
            self.write(last)  # before the longer file goes, so that a kill in between loses nothing
            if longer is not None:
                longer.unlink()

    def drop(self, segment: Segment) -> None:
        """Forget the oldest segment of a stream."""
        del self.streams[segment.stream // self.share.count].segments[segment.number]
        segment.is_dropped = True
        self._garbage += [segment.memo, *([segment.chunk] if segment.chunk else [])]

    def too_few(self, found: int, count: int) -> OneiroError:
        """What to say when `found` streams are to go on in `count` slots."""
        return OneiroError(
            f"{self.folder} holds {found} streams, one for each environment slot, and there are now {count}; set "
            f"env.num to {found} or more"
        )

    def _load(self, count: int, is_writable: bool) -> None:
        if self._note.exists():
            note = json.loads(self._note.read_text())
            if note["format"] > FORMAT:
                raise OneiroError(
                    f"{self.folder} has format {note['format']}, this reads {FORMAT}; update oneiro"
                )
            self._require_env(note.get("env"))  # notes of before have none
            self.size = note["size"]
            self.columns = {name: Column.from_json(column) for name, column in note["columns"].items()}
            self.memo_type = None if note["memo"] is None else MemoType.from_json(note["memo"])
        found = len([path for path in self._parts.glob("*") if path.is_dir()]) if self.size else 0
        if is_writable and 0 < count < found:
            raise self.too_few(found, count)
        for index in self.share.of(range(max(count, found))):
            stream = Stream(self._parts / f"{index:04d}", self.size)
            self.streams.append(stream)
            if self.size and is_writable:
                stream.folder.mkdir(exist_ok=True)
            if is_writable:
                for leftover in stream.folder.glob("*.tmp"):  # of a write that a kill interrupted
                    leftover.unlink()
            self._garbage += stream.load()
            for segment in stream.segments.values():
                segment.share(self.columns)
        if self.size and is_writable:
            self._check_room()

    def _require_env(self, kept: Mapping[str, Any] | None) -> None:
        given, self.env = self.env, self.env if kept is None else kept
        if kept is None or given is None:
            return
        other = [
            name for name in kept if name in given and kept[name] != given[name]
        ]  # new settings may be added
        if other:
            there = ", ".join(f"{name}: {kept[name]!r} there, {given[name]!r} now" for name in other)
            raise OneiroError(
                f"{self.folder} holds what was lived through in another environment ({there}); one replay is for one "
                "environment. Set that environment again, or use another run folder"
            )

    def _check_room(self) -> None:
        """The size of segments stays when streams are added or the limits change."""
        count = len(self.streams)
        per_row = sum(np.dtype(c.dtype).itemsize * int(np.prod(c.shape)) for c in self.columns.values())
        per_row += self.record
        if count * self.size * per_row > self.ram // 2 or 2 * count * self.size > self.capacity:
            raise self._too_small(count, per_row, self.size, 2)

    def _other_columns(self, rows: Mapping[str, np.ndarray]) -> OneiroError:
        given = {name: (array.dtype.str, array.shape[1:]) for name, array in rows.items()}
        kept = {name: (column.dtype, column.shape) for name, column in self.columns.items()}
        return OneiroError(
            f"the environment gives {_list(given)}, but {self.folder} holds {_list(kept)}; one replay is for one "
            "environment, use another folder"
        )

    def _too_small(self, count: int, per_row: int, size: int, times: int) -> OneiroError:
        ram, rows = times * count * size * per_row, times * count * size
        if ram > self.ram:
            return OneiroError(
                f"data.ram is {self.ram / 2**30:.3g} GiB; {count} streams with rows of {per_row:,} bytes need at "
                f"least {ram / 2**30:.3g}"
            )
        return OneiroError(
            f"data.capacity is {self.capacity} rows; {count} streams need at least {rows}, {times} segments of "
            f"{size} rows each"
        )

    def _save_note(self) -> None:
        if self.share.index:
            return  # the process that owns stream 0 writes the same
        note = {
            "format": FORMAT,
            "size": self.size,
            "columns": {name: column.to_json() for name, column in self.columns.items()},
            "memo": self.memo_type and self.memo_type.to_json(),
            "env": self.env,
        }
        write_durably(self._note, [json.dumps(note, indent=1).encode()])


def _list(types: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {dtype}{list(shape)}" for name, (dtype, shape) in sorted(types.items()))
