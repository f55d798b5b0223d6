"""Columns attached to stored episodes afterwards, for example the latents of every frame once V is trained.

Each attachment is a numbered folder of chunk files under `memo/`. It is written under another name and renamed
when complete, so it is there with all its rows or not at all; where two have the same column of an episode the
newer one counts, and a folder in which nothing counts any more is deleted.
"""

import shutil
from collections.abc import Callable, Container, Iterable
from pathlib import Path

import numpy as np

from oneiro.data.chunks import Chunk, Entry, NewChunk, Torn, sync_folder
from oneiro.data.columns import Column
from oneiro.errors import OneiroError

Rows = dict[str, np.ndarray]


class Memos:
    """The attached columns of one store."""

    def __init__(self, folder: Path, *, writable: bool, compress: bool, chunk_bytes: int) -> None:
        self.folder, self.writable, self.compress, self.chunk_bytes = folder, writable, compress, chunk_bytes
        self.entries: dict[str, dict[int, Entry]] = {}
        """By name, then by episode."""
        if writable:
            folder.mkdir(exist_ok=True)
            for leftover in folder.glob("*.tmp"):
                shutil.rmtree(leftover)
        for attachment in sorted(path for path in folder.glob("*") if path.suffix != ".tmp"):
            self._load(attachment)

    def keep(self, ids: Container[int]) -> None:
        """Forget what belongs to other episodes than these."""
        for name, by_id in self.entries.items():
            self.entries[name] = {id: entry for id, entry in by_id.items() if id in ids}
        if self.writable:
            self._delete_unused()

    def find(self, name: str, id: int) -> Entry | None:
        """Where the memo of one episode is."""
        return self.entries.get(name, {}).get(id)

    def attach(self, items: Iterable[tuple[int, Rows]], rows: Callable[[int], int]) -> None:
        """Store the memo of each (id, {name: [T, ...]}) as they come; `rows` tells how many are expected."""
        last = max((int(path.stem) for path in self.folder.glob("*")), default=-1)
        final = self.folder / f"{last + 1:06d}"
        temporary = final.with_suffix(".tmp")
        temporary.mkdir()
        try:
            self._write(temporary, items, rows)
            sync_folder(temporary)
            temporary.rename(final)
            sync_folder(self.folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._load(final)
        self._delete_unused()

    def _write(self, folder: Path, items: Iterable[tuple[int, Rows]], rows: Callable[[int], int]) -> None:
        chunk, count = None, 0
        for id, arrays in items:
            columns = {name: Column.of(array, self.compress) for name, array in arrays.items()}
            chunk = chunk or NewChunk(columns)
            if columns != chunk.columns:
                raise OneiroError(
                    f"the memo of episode {id} is {_describe(columns)}, that of the episodes before it "
                    f"{_describe(chunk.columns)}; attach the same columns for every episode"
                )
            for name, array in arrays.items():
                if len(array) != rows(id):
                    raise OneiroError(
                        f"the memo {name!r} of episode {id} has {len(array)} rows, the episode has {rows(id)}; "
                        "a memo needs one row per stored row"
                    )
            chunk.add(id, arrays)
            if chunk.nbytes >= self.chunk_bytes:
                chunk.write(folder / f"{count:08d}.chunk")
                chunk, count = NewChunk(columns), count + 1
        if chunk and chunk.entries:
            chunk.write(folder / f"{count:08d}.chunk")

    def _load(self, attachment: Path) -> None:
        for path in sorted(attachment.glob("*.chunk")):
            try:
                chunk = Chunk(path)
            except Torn:
                raise OneiroError(
                    f"{path} is cut short; delete the folder {attachment} and attach its memo again"
                ) from None
            for name in chunk.columns:
                self.entries.setdefault(name, {}).update((entry.id, entry) for entry in chunk.entries)

    def _delete_unused(self) -> None:
        used = {
            entry.chunk.path.parent.name
            for by_id in self.entries.values()
            for entry in by_id.values()
            if isinstance(entry.chunk, Chunk)
        }
        for path in self.folder.glob("*"):
            if path.name not in used:
                # Renamed first: a deletion that is interrupted must not leave half an attachment behind.
                shutil.rmtree(path.rename(path.with_suffix(".tmp")))


def _describe(columns: dict[str, Column]) -> str:
    return ", ".join(f"{name} {column.dtype}{list(column.shape)}" for name, column in columns.items())
