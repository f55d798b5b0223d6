"""Chunk files: some whole episodes in one file that is written once, checked when read, and never changed.

    preamble  magic, format, lengths and checksum of the header, length of the payload, checksum of itself
    header    JSON: columns, episodes (id, rows, info, ...), size and checksum of every block
    payload   the blocks, episode by episode and column by column

A file is written under another name, synced and renamed, so it is there completely or not at all. Where a file
system breaks that promise the file is *torn*, which shows in its length; a file of the right length with a wrong
checksum is *damaged*. A torn newest chunk is dropped, a damaged one is refused.
"""

import errno
import itertools
import json
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from oneiro.data.columns import Column
from oneiro.errors import OneiroError

MAGIC = b"oneiroep"
FORMAT = 1
PREAMBLE = struct.Struct("<8sIIIQ")  # magic, format, header length, header checksum, payload length
CHECKSUM = struct.Struct("<I")
_keys = itertools.count()


class Torn(Exception):  # noqa: N818 - the state of a file
    """The file is shorter than it says."""


@dataclass
class Entry:
    """What is kept in memory about one episode."""

    id: int
    rows: int
    first: int
    """Its first block in the chunk."""
    chunk: "Chunk | NewChunk"
    ends: tuple[int, ...] = ()
    """Rows that are terminal."""
    info: dict[str, Any] = field(default_factory=dict)


class NewChunk:
    """A chunk that is still being filled, packed but in memory."""

    def __init__(self, columns: dict[str, Column]) -> None:
        self.columns = columns
        self.entries: list[Entry] = []
        self.nbytes = 0
        self.key = next(_keys)
        self._blocks: list[bytes] = []

    def add(
        self,
        id: int,
        arrays: dict[str, np.ndarray],
        ends: Iterable[int] = (),
        info: dict[str, Any] | None = None,
    ) -> Entry:
        """Pack the rows of one episode; `arrays` has exactly the chunk's columns."""
        rows = len(next(iter(arrays.values())))
        entry = Entry(id, rows, len(self._blocks), self, tuple(ends), info or {})
        for name, column in self.columns.items():
            blocks = column.pack(arrays[name])
            self._blocks += blocks
            self.nbytes += sum(map(len, blocks))
        self.entries.append(entry)
        return entry

    def payload(self, block: int) -> bytes:
        """The packed bytes of one block."""
        return self._blocks[block]

    def write(self, path: Path) -> "Chunk":
        """Make it a file, durably; its entries belong to the file from then on."""
        header = json.dumps(
            {
                "columns": {name: column.to_json() for name, column in self.columns.items()},
                "episodes": [
                    {"id": e.id, "rows": e.rows, "ends": e.ends, "info": e.info} for e in self.entries
                ],
                "sizes": [len(block) for block in self._blocks],
                "checksums": [zlib.crc32(block) for block in self._blocks],
            },
            separators=(",", ":"),
        ).encode()
        preamble = PREAMBLE.pack(MAGIC, FORMAT, len(header), zlib.crc32(header), self.nbytes)
        write_durably(path, [preamble, CHECKSUM.pack(zlib.crc32(preamble)), header, *self._blocks])
        chunk = Chunk(path)
        chunk.key, chunk.entries = self.key, self.entries
        for entry in self.entries:
            entry.chunk = chunk
        return chunk


class Chunk:
    """A chunk file. Opening reads the header; blocks are read and checked one by one."""

    def __init__(self, path: Path) -> None:
        self.path, self.key = path, next(_keys)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(PREAMBLE.size + CHECKSUM.size)
            if len(head) < PREAMBLE.size + CHECKSUM.size:
                raise Torn(path)
            magic, version, length, checksum, self.nbytes = PREAMBLE.unpack(head[: PREAMBLE.size])
            if magic != MAGIC or CHECKSUM.unpack(head[PREAMBLE.size :])[0] != zlib.crc32(
                head[: PREAMBLE.size]
            ):
                raise self._damage("is not a chunk of episodes or its first bytes are damaged")
            if version != FORMAT:
                raise OneiroError(f"{path} has format {version}, this version reads {FORMAT}; update oneiro")
            self._start = len(head) + length
            if size < self._start + self.nbytes:
                raise Torn(path)
            header = file.read(length)
        if zlib.crc32(header) != checksum or size > self._start + self.nbytes:
            raise self._damage("is damaged")
        data = json.loads(header)
        self.columns = {name: Column.from_json(column) for name, column in data["columns"].items()}
        self._offsets = np.concatenate([[0], np.cumsum(data["sizes"], dtype=np.int64)]).astype(np.int64)
        self._checksums = np.array(data["checksums"], np.uint32)
        self.entries: list[Entry] = []
        first = 0
        for e in data["episodes"]:
            self.entries.append(Entry(e["id"], e["rows"], first, self, tuple(e["ends"]), e["info"]))
            first += sum(column.blocks(e["rows"]) for column in self.columns.values())

    def payload(self, block: int) -> bytes:
        """The packed bytes of one block, checked."""
        start, stop = int(self._offsets[block]), int(self._offsets[block + 1])
        try:
            handle = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            raise OneiroError(f"{self.path} is gone; open the store again to go on without it") from None
        try:
            # Read, not mapped: mapped pages count as ours and grow without bound over a long run.
            data = os.pread(handle, stop - start, self._start + start)
        finally:
            os.close(handle)
        if zlib.crc32(data) != self._checksums[block]:
            raise self._damage("is damaged")
        return data

    def verify(self) -> None:
        """Check every block."""
        for block in range(len(self._checksums)):
            self.payload(block)

    def _damage(self, what: str) -> OneiroError:
        return OneiroError(
            f"{self.path} {what} (wrong checksum). Restore it from a copy, or delete it to go on without the "
            "rows in it"
        )


def locate(entry: Entry, name: str) -> tuple[Column, int]:
    """The column of that name and the number of the episode's first block of it."""
    block = entry.first
    for other, column in entry.chunk.columns.items():
        if other == name:
            return column, block
        block += column.blocks(entry.rows)
    raise KeyError(name)


def write_durably(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file so that it is complete under its name or absent, also after a power cut."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OneiroError(
                f"the disk is full: {path} could not be written. Free some space, choose a run folder on "
                "another disk, or set a smaller data.capacity; everything written before is intact"
            ) from error
        raise


def sync_folder(folder: Path) -> None:
    """Make creations, renames and deletions in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
