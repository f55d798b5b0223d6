"""`EpisodeStore`: episodes on disk, read back by row within a fixed amount of memory.

    add --pack--> chunk being filled (memory) --flush--> chunks/00000007.chunk
                                                              |
    read, samplers <--copy-- block cache (memory) <--unpack---+--- memo/000002/*.chunk  <-- attach

What is in memory: the packed rows of episodes not yet written (some MB), the block cache, and per episode a few
hundred bytes of index. Nothing is mapped, so 38 GB of frames on disk do not show in the process.
"""

import bisect
import json
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from oneiro.data.cache import BlockCache
from oneiro.data.chunks import Chunk, Entry, NewChunk, Torn, sync_folder
from oneiro.data.columns import Column
from oneiro.data.episode_reader import EpisodeReader
from oneiro.data.episodes import Episode
from oneiro.data.memos import Memos, Rows
from oneiro.errors import OneiroError, nearest

CHUNK_BYTES = 4 * 1024 * 1024
"""Packed size at which a chunk is written without waiting for `flush`."""
SMALLEST_RAM = 4 * 1024 * 1024


class EpisodeStore(EpisodeReader):
    """Episodes in one folder. One process may write; the folder's owner (the run) sees to that.

    `ram` bounds the memory in bytes (block cache and write buffer), `capacity` the number of rows: beyond it the
    episodes with the lowest ids are dropped. With mode "r" nothing in the folder is touched.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        ram: int = 1 << 30,
        capacity: int = sys.maxsize,
        compress: bool = True,
        mode: Literal["a", "r"] = "a",
    ) -> None:
        if ram < SMALLEST_RAM:
            raise OneiroError(f"ram is {ram} bytes; the episode store needs at least {SMALLEST_RAM}")
        if capacity < 1:
            raise OneiroError(f"capacity is {capacity} rows; it must be at least the length of one episode")
        self.folder, self.capacity, self.compress, self.mode = Path(folder), capacity, compress, mode
        self.version = 0
        """Changes with the content, so that samplers know when to count again."""
        self.rows = 0
        """Number of rows of all episodes."""
        self._chunk_bytes = min(CHUNK_BYTES, ram // 8)
        self._cache = BlockCache(ram - 2 * self._chunk_bytes)
        self._entries: dict[int, Entry] = {}
        self._order: list[int] = []
        self._dropped = -1  # the highest id that has made room
        self._chunks: list[Chunk] = []
        self._pending: NewChunk | None = None
        if mode == "r" and not self._chunk_folder.is_dir():
            raise OneiroError(f"{self.folder} holds no episodes; collect some first or check the path")
        if mode == "a":
            self._chunk_folder.mkdir(parents=True, exist_ok=True)
            for leftover in self._chunk_folder.glob("*.tmp"):
                leftover.unlink()
        self._memos = Memos(
            self.folder / "memo", writable=mode == "a", compress=compress, chunk_bytes=self._chunk_bytes
        )
        self._complete: tuple[int, tuple[str, ...]] = (-1, ())
        self._load()
        self._enforce_capacity()
        self._memos.keep(self._entries)

    # -- content ---------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, id: int) -> bool:
        return id in self._entries

    @property
    def ids(self) -> np.ndarray:
        """[N] int64, ascending."""
        return np.array(self._order, np.int64)

    @property
    def lengths(self) -> np.ndarray:
        """[N] int64: rows of each episode, in the order of `ids`."""
        return np.array([self._entries[id].rows for id in self._order], np.int64)

    @property
    def columns(self) -> dict[str, Column]:
        """Type of every recorded column by stored name ("action", "obs/image", ...); empty for an empty store."""
        if self._pending:
            return self._pending.columns
        return self._chunks[-1].columns if self._chunks else {}

    @property
    def memos(self) -> tuple[str, ...]:
        """Names of the attached columns that every episode has."""
        if self._complete[0] != self.version:
            complete = (name for name in self._memos.entries if self._order and not self.without_memo(name))
            self._complete = (self.version, tuple(complete))
        return self._complete[1]

    @property
    def nbytes(self) -> int:
        """Packed size of the recorded rows, in bytes."""
        return sum(chunk.nbytes for chunk in self._chunks) + (self._pending.nbytes if self._pending else 0)

    def length(self, id: int) -> int:
        """Rows of an episode."""
        return self._entry(id).rows

    def info(self, id: int) -> dict[str, Any]:
        """The `info` of an episode; reads no rows."""
        return dict(self._entry(id).info)

    def missing(self, ids: Iterable[int]) -> list[int]:
        """Those of `ids` that are not stored. What is as old as an episode that has made room is not missed."""
        return [id for id in ids if id > self._dropped and id not in self._entries]

    # -- reading ---------------------------------------------------------------------------------------------

    def column(self, field: str) -> Column:
        """Type of a field; OneiroError that names the fields there are."""
        for name in (field, f"obs/{field}"):
            if name in self.columns:
                return self.columns[name]
        if self.has_memo(field):
            return self._memos.entries[field][self._order[0]].chunk.columns[field]
        if not self._order:
            raise OneiroError(f"there are no episodes in {self.folder}; collect some first")
        if field in self._memos.entries:
            missing = self.without_memo(field)
            raise OneiroError(
                f"the memo {field!r} is missing for {len(missing)} of {len(self)} episodes (first: {missing[0]}); "
                "attach it again, for example by encoding the new episodes"
            )
        raise OneiroError(f"the stored episodes have no field {field!r}. {nearest(field, self.fields)}")

    def copy(self, field: str, id: int, start: int, out: np.ndarray) -> None:
        """Fill `out` [n, ...] with rows start .. start + n of a field of an episode."""
        entry = self._entry(id)
        memo = self._memos.find(field, id)
        if memo is not None:
            return self._cache.copy(memo, field, start, out)
        name = field if field in entry.chunk.columns else f"obs/{field}"
        return self._cache.copy(entry, name, start, out)

    def terminated(self, id: int, start: int, stop: int) -> np.ndarray:
        """[stop - start] bool; kept in the index, so that it costs no read."""
        flags = np.zeros(stop - start, np.bool_)
        for row in self._entry(id).ends:
            if start <= row < stop:
                flags[row - start] = True
        return flags

    # -- writing ---------------------------------------------------------------------------------------------

    def add(self, episode: Episode) -> None:
        """Append a whole episode, or the finished piece of an endless one. Durable after `flush`."""
        self._require_writable()
        episode.check()
        if episode.id in self._entries:
            raise OneiroError(f"episode {episode.id} is stored already; give the new one another id")
        if episode.start:
            raise OneiroError(f"episode {episode.id} is a piece from row {episode.start} on; add it whole")
        if len(episode) > self.capacity:
            raise self._too_long(episode.id, len(episode))
        arrays = {name: array for name, array in episode.columns().items() if name != "terminated"}
        columns = self.columns or {name: Column.of(array, self.compress) for name, array in arrays.items()}
        self._compare(episode.id, arrays, columns)
        if self._pending is None:
            self._pending = NewChunk(columns)
        info = json.loads(json.dumps(episode.info, default=_plain))
        ends = np.flatnonzero(episode.terminated).tolist()
        self._enlist(self._pending.add(episode.id, arrays, ends, info))
        self._enforce_capacity()
        if self._pending.nbytes >= self._chunk_bytes:
            self.flush()

    def flush(self) -> None:
        """Make every episode so far durable; files of which no episode is left are deleted after that."""
        self._require_writable()
        if self._pending and self._pending.entries:
            number = 1 + max((int(chunk.path.stem) for chunk in self._chunks), default=-1)
            self._chunks.append(self._pending.write(self._chunk_folder / f"{number:08d}.chunk"))
            self._pending = None
        # The newest file stays even if it is empty of episodes, so that numbers are never used twice.
        for chunk in self._chunks[:-1]:
            if not any(entry.id in self._entries for entry in chunk.entries):
                chunk.path.unlink()
                self._chunks.remove(chunk)
        sync_folder(self._chunk_folder)

    def attach(self, items: Iterable[tuple[int, Rows]]) -> None:
        """Store more columns beside episodes: (id, {name: [T, ...]}) one at a time, as a generator makes them.

        All of them are there when this returns, none if it is interrupted. Names that were attached before are
        replaced for these episodes.
        """
        self.flush()
        self._memos.attach(self._checked(items), lambda id: self._entry(id).rows)
        self.version += 1

    def has_memo(self, name: str) -> bool:
        """True if every episode has this attached column."""
        return name in self.memos

    def without_memo(self, name: str) -> list[int]:
        """Ids of the episodes that lack this attached column."""
        found = self._memos.entries.get(name, {})
        return [id for id in self._order if id not in found]

    def forget(self) -> None:
        """Give back the memory of the block cache; what is read later is unpacked again."""
        self._cache.clear()

    def close(self) -> None:
        """Flush, if this store may write."""
        if self.mode == "a":
            self.flush()

    def __enter__(self) -> "EpisodeStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside ----------------------------------------------------------------------------------------------

    @property
    def _chunk_folder(self) -> Path:
        return self.folder / "chunks"

    def _load(self) -> None:
        paths = sorted(self._chunk_folder.glob("*.chunk"))
        for path in paths:
            try:
                chunk = Chunk(path)
            except Torn:
                if path != paths[-1]:
                    raise OneiroError(
                        f"{path} is cut short. Restore it from a copy, or delete it to go on without the rows in it"
                    ) from None
                warnings.warn(
                    f"{path} is cut short, the machine must have stopped while it was written; its episodes "
                    "are dropped",
                    stacklevel=3,
                )
                if self.mode == "a":
                    path.unlink()
                continue
            if path == paths[-1]:
                chunk.verify()
            self._chunks.append(chunk)
            for entry in chunk.entries:
                self._enlist(entry)
        if self._order and int(self._chunks[0].path.stem) > 0:  # files before it held episodes that made room
            self._dropped = self._order[0] - 1

    def _enlist(self, entry: Entry) -> None:
        self._entries[entry.id] = entry
        bisect.insort(self._order, entry.id)
        self.rows += entry.rows
        self.version += 1

    def _enforce_capacity(self) -> None:
        while self.rows > self.capacity:
            if len(self._order) == 1:
                raise self._too_long(self._order[0], self.rows)
            entry = self._entries.pop(self._order.pop(0))
            self.rows -= entry.rows
            self._dropped = max(self._dropped, entry.id)
            for by_id in self._memos.entries.values():
                by_id.pop(entry.id, None)

    def _too_long(self, id: int, rows: int) -> OneiroError:
        return OneiroError(
            f"episode {id} has {rows} rows but the capacity is {self.capacity}; set data.capacity to at least {rows}"
        )

    def _entry(self, id: int) -> Entry:
        if id not in self._entries:
            span = f"{self._order[0]} to {self._order[-1]}" if self._order else "no episode"
            raise OneiroError(f"there is no episode {id} in {self.folder}, it holds {span}")
        return self._entries[id]

    def _require_writable(self) -> None:
        if self.mode == "r":
            raise OneiroError(f'{self.folder} was opened for reading; open it with mode="a" to write')

    def _compare(self, id: int, arrays: Rows, columns: dict[str, Column]) -> None:
        same = arrays.keys() == columns.keys() and all(columns[name].holds(arrays[name]) for name in columns)
        if not same:
            found = ", ".join(f"{name} {a.dtype.str}{list(a.shape[1:])}" for name, a in arrays.items())
            kept = ", ".join(f"{name} {c.dtype}{list(c.shape)}" for name, c in columns.items())
            raise OneiroError(
                f"episode {id} has {found}, but {self.folder} holds {kept}; one store is for one environment, "
                "use another folder"
            )

    def _checked(self, items: Iterable[tuple[int, Rows]]) -> Iterator[tuple[int, Rows]]:
        for id, arrays in items:
            for name in arrays:
                if name in self.columns or f"obs/{name}" in self.columns or name == "terminated":
                    raise OneiroError(
                        f"a memo cannot be called {name!r}, the episodes have a field of that name"
                    )
            yield id, arrays


def _plain(value: Any) -> Any:
    """NumPy numbers and arrays in `info` as JSON."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"info can hold what JSON can, not {type(value).__name__}: {value!r}")
