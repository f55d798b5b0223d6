"""Segments: consecutive rows of one stream. Growing ones are arrays in memory, full ones files.

    0003/00000012-0300.rows    rows of segment 12 as far as they went at a flush; superseded by
    0003/00000012-1024.rows    the full one, which never changes
    0003/00000012.memo         latents, rewritten in place (`memo_file`)

Which rows begin and end an episode is kept in memory, so `is_first` and `terminated` cost no read.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from oneiro.data.cache import BlockCache
from oneiro.data.chunks import Chunk, Entry, NewChunk, Torn
from oneiro.data.columns import Column
from oneiro.data.memo_file import read_records, write_records
from oneiro.errors import OneiroError

TERMINAL, LAST = 1, 2
"""Marks of a row, which may have both: the game is over (or counts so), and the episode ends here."""


class Segment:
    """Rows start .. stop of a stream. A full one takes a few kB of memory, whatever it holds."""

    __slots__ = (
        *(
            "_arrays",
            "_records",
            "born",
            "chunk",
            "ends",
            "entry",
            "firsts",
            "folder",
            "is_dropped",
            "number",
            "room",
        ),
        *("start", "stop", "stream", "written"),
    )

    def __init__(self, folder: Path, number: int, start: int, room: int, born: int) -> None:
        self.folder, self.number, self.stream = folder, number, int(folder.name)
        self.start = self.stop = self.written = start
        """`written`: rows up to this one are in the file."""
        self.room = room
        """Rows it has room for."""
        self.born = born
        """How many rows all streams together had when it began."""
        self.firsts: list[tuple[int, int]] | np.ndarray = []
        """(row of the stream, id of the episode that begins there)."""
        self.ends: list[tuple[int, int]] | np.ndarray = []
        """(row of the stream, TERMINAL and LAST as bits) of rows that have a mark."""
        self.entry: Entry | None = None
        self.chunk: Path | None = None
        """The file, if there is one."""
        self.is_dropped = False
        self._arrays: dict[str, np.ndarray] | None = None
        self._records: np.ndarray | None = None

    @classmethod
    def load(cls, path: Path, end: int) -> "Segment":
        """From a file, with room up to row `end`; raises `Torn`."""
        entry = Chunk(path).entries[0]
        start = entry.info["start"]
        segment = cls(path.parent, entry.id, start, end - start, entry.info["born"])
        segment.stop = segment.written = start + entry.rows
        segment.entry, segment.chunk = entry, path
        segment.firsts = _pairs([(start + row, id) for row, id in entry.info["firsts"]])
        segment.ends = _pairs([(start + row, kind) for row, kind in entry.info["ends"]])
        entry.info = {}
        return segment

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start

    @property
    def is_growing(self) -> bool:
        """True while its rows are in memory."""
        return self._arrays is not None

    @property
    def memo(self) -> Path:
        """File of its latents."""
        return self.folder / f"{self.number:08d}.memo"

    def share(self, columns: dict[str, Column]) -> None:
        """Use these columns, one object for all segments; OneiroError if the file has others."""
        assert self.entry is not None
        if self.entry.chunk.columns != columns:
            raise OneiroError(
                f"{self.chunk} has other columns than its replay.json; restore both from one copy"
            )
        self.entry.chunk.columns = columns

    def grow(self, columns: dict[str, Column], record: int) -> None:
        """Get ready to append: room in memory for all rows and their latents (`record` bytes), with those there are."""
        arrays = {name: np.empty((self.room, *c.shape), c.dtype) for name, c in columns.items()}
        if self.entry is not None:
            cache = BlockCache(0)
            for name, array in arrays.items():
                cache.copy(self.entry, name, 0, array[: self.rows])
            if record:
                self._records = np.zeros((self.room, record), np.uint8)
                read_records(self.memo, 0, self._records[: self.rows])
        self.firsts = [(int(row), int(id)) for row, id in self.firsts]
        self.ends = [(int(row), int(kind)) for row, kind in self.ends]
        self._arrays, self.entry = arrays, None

    def add(self, rows: Mapping[str, np.ndarray], slot: int, begins: int | None, end: int) -> None:
        """Append row `slot` of arrays [S, ...]; `begins`: id of the episode that begins here, `end`: its marks."""
        assert self._arrays is not None
        place = self.stop - self.start
        for name, array in self._arrays.items():
            array[place] = rows[name][slot]
        if begins is not None:
            self.firsts = [*self.firsts, (self.stop, begins)]
        if end:
            self.ends = [*self.ends, (self.stop, end)]
        self.stop += 1

    def cut(self, stop: int) -> None:
        """Forget the rows from `stop` on."""
        assert self.is_growing
        self.stop = self.written = stop
        self.firsts = [(row, id) for row, id in self.firsts if row < stop]
        self.ends = [(row, kind) for row, kind in self.ends if row < stop]

    def write(self, columns: dict[str, Column]) -> tuple[Path, Entry]:
        """Make the rows there are a file; the segment goes on growing."""
        assert self._arrays is not None
        path = self.folder / f"{self.number:08d}-{self.rows:04d}.rows"
        info: dict[str, Any] = {"born": self.born, "start": self.start}
        info["firsts"] = [(row - self.start, id) for row, id in self.firsts]
        info["ends"] = [(row - self.start, kind) for row, kind in self.ends]
        chunk = NewChunk(columns)
        entry = chunk.add(self.number, {k: x[: self.rows] for k, x in self._arrays.items()}, (), info)
        chunk.write(path)
        self.write_memo()
        entry.info = {}
        self.written = self.stop
        return path, entry

    def write_memo(self) -> None:
        """Bring the latents in memory to the file."""
        if self._records is not None:
            write_records(self.memo, 0, self._records[: self.rows], self.room)

    def seal(self, path: Path, entry: Entry, columns: dict[str, Column]) -> None:
        """Read from the file from now on. A thread that is reading goes on with the arrays."""
        self.entry, self.chunk = entry, path
        self.share(columns)
        self.firsts, self.ends = _pairs(list(self.firsts)), _pairs(list(self.ends))
        self._arrays = self._records = None

    def copy(self, cache: BlockCache, name: str, row: int, out: np.ndarray) -> None:
        """Fill `out` [n, ...] with rows row .. row + n of a column."""
        arrays = self._arrays
        if arrays is not None:
            out[:] = arrays[name][row - self.start : row - self.start + len(out)]
        else:
            assert self.entry is not None
            cache.copy(self.entry, name, row - self.start, out)

    def get_memo(self, row: int, out: np.ndarray) -> None:
        """Fill `out` uint8 [n, record] with the latents of rows row .. row + n."""
        place = row - self.start
        if self._records is not None:
            out[:] = self._records[place : place + len(out)]
        elif self._arrays is not None:
            out[:] = 0
        else:
            read_records(self.memo, place, out)

    def put_memo(self, row: int, records: np.ndarray) -> None:
        """Replace the latents of rows row .. row + n by `records` uint8 [n, record]."""
        place = row - self.start
        if self._arrays is None:
            write_records(self.memo, place, records, self.room)
            return
        if self._records is None:
            self._records = np.zeros((self.room, records.shape[1]), np.uint8)
        self._records[place : place + len(records)] = records

    def mark(self, row: int, first: np.ndarray, terminated: np.ndarray) -> None:
        """Set the flags [n] bool of rows row .. row + n."""
        for begun, _ in self.firsts:
            if row <= begun < row + len(first):
                first[begun - row] = True
        for ended, kind in self.ends:
            if kind & TERMINAL and row <= ended < row + len(terminated):
                terminated[ended - row] = True


class Stream:
    """The segments of one stream by number, oldest first.

    Boundaries lie at multiples of `size`, moved by an offset of its own for every stream, so that streams which grow
    together do not all fill a segment at the same moment.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self.offset = int(size * (int(folder.name) * 0.6180339887498949 % 1))
        self.segments: dict[int, Segment] = {}
        self.stop = 0
        """One more than the newest row."""
        self.must_begin = True
        """The next row has to begin an episode."""

    @property
    def first(self) -> int:
        """Oldest row that is kept."""
        return next(iter(self.segments.values())).start if self.segments else self.stop

    @property
    def last(self) -> Segment | None:
        """The newest segment."""
        return next(reversed(self.segments.values()), None)

    def last_id(self) -> int:
        """Id of the newest episode; -1 if there is none."""
        found = (int(s.firsts[-1][1]) for s in reversed(self.segments.values()) if len(s.firsts))
        return next(found, -1)

    def number(self, row: int) -> int:
        """The segment that a row belongs to."""
        return (row + self.offset) // self.size

    def end(self, number: int) -> int:
        """The row at which segment `number` is full."""
        return (number + 1) * self.size - self.offset

    def begin(self, born: int) -> Segment:
        """A segment for the next row."""
        number = self.number(self.stop)
        segment = Segment(self.folder, number, self.stop, self.end(number) - self.stop, born)
        self.segments[number] = segment
        return segment

    def pieces(self, row: int, count: int) -> list[tuple[Segment, int, int]]:
        """(segment, from row, to row) that make up rows row .. row + count."""
        found, stop = [], row + count
        assert self.first <= row <= stop <= self.stop, (self.first, row, stop, self.stop)
        while row < stop:
            segment = self.segments[self.number(row)]
            found.append((segment, row, min(stop, segment.stop)))
            row = segment.stop
        return found

    def cut(self, stop: int) -> list[Segment]:
        """Forget the segments from row `stop` on; returns them. The one that `stop` lies in stays, uncut."""
        gone = [segment for segment in self.segments.values() if segment.start >= stop]
        for segment in gone:
            del self.segments[segment.number]
        self.stop = min(self.stop, stop)
        return gone

    def load(self) -> list[Path]:
        """Find the files; returns those that are superseded, torn, or older than a gap."""
        files: dict[int, list[tuple[int, Path]]] = {}
        for path in self.folder.glob("*.rows"):
            number, _, rows = path.stem.partition("-")
            files.setdefault(int(number), []).append((int(rows), path))
        useless: list[Path] = []
        for number in sorted(files):
            for rows, path in sorted(files[number], reverse=True):
                if number not in self.segments and self._open(path, number, rows, number == max(files)):
                    continue
                useless.append(path)
        useless += self._drop_before_gap()
        useless += [memo for memo in self.folder.glob("*.memo") if int(memo.stem) not in self.segments]
        self.stop = self.last.stop if self.last else 0
        return useless

    def _open(self, path: Path, number: int, rows: int, is_last: bool) -> bool:
        """Load a segment; False if it is torn, which only the newest may be."""
        try:
            segment = Segment.load(path, self.end(number))
        except Torn:
            if not is_last:
                raise OneiroError(
                    f"{path} is cut short. Restore it from a copy, or delete it to go on without it and what is "
                    "older in this stream"
                ) from None
            warnings.warn(
                f"{path} is cut short, the machine must have stopped while it was written; its {rows} rows are "
                "dropped",
                stacklevel=5,
            )
            return False
        if is_last:
            assert segment.entry is not None
            assert isinstance(segment.entry.chunk, Chunk)
            segment.entry.chunk.verify()
        self.segments[number] = segment
        return True

    def _drop_before_gap(self) -> list[Path]:
        """Only the newest segments that lie end to end make a stream; returns the files of the others."""
        whole = list(self.segments.values())
        for before, after in zip(whole[-2::-1], whole[:0:-1], strict=True):
            if before.stop != after.start:
                gone = whole[: whole.index(after)]
                for segment in gone:
                    del self.segments[segment.number]
                return [segment.chunk for segment in gone if segment.chunk]
        return []


def _pairs(pairs: list[Any]) -> np.ndarray:
    """[n, 2] int64."""
    return np.array(pairs, np.int64).reshape(-1, 2)
