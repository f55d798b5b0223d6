"""`EpisodeReader`: stored episodes as they are read, by an `EpisodeStore` or from the streams of a `Replay`."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from oneiro.data.columns import Column
from oneiro.data.episodes import Episode
from oneiro.errors import OneiroError


class EpisodeReader(ABC):
    """Episodes by id, and rows of them by field. Fields are modalities, "action", "reward", and attached memos."""

    folder: Path
    capacity: int
    """Rows that are kept at most."""
    version: int
    """Changes with the content, so that samplers know when to count again."""
    rows: int
    """Number of rows of all episodes."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __contains__(self, id: int) -> bool: ...

    @property
    @abstractmethod
    def ids(self) -> np.ndarray:
        """[N] int64, ascending."""

    @property
    @abstractmethod
    def lengths(self) -> np.ndarray:
        """[N] int64: rows of each episode, in the order of `ids`."""

    @property
    @abstractmethod
    def columns(self) -> dict[str, Column]:
        """Type of every recorded column by stored name ("action", "obs/image", ...); empty if there is none."""

    @property
    @abstractmethod
    def memos(self) -> tuple[str, ...]:
        """Names of the attached columns that every episode has."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Size on the disk, in bytes."""

    @abstractmethod
    def length(self, id: int) -> int:
        """Rows of an episode."""

    @abstractmethod
    def info(self, id: int) -> dict[str, Any]:
        """The `info` of an episode; reads no rows."""

    @abstractmethod
    def column(self, field: str) -> Column:
        """Type of a field; OneiroError that names the fields there are."""

    @abstractmethod
    def copy(self, field: str, id: int, start: int, out: np.ndarray) -> None:
        """Fill `out` [n, ...] with rows start .. start + n of a field of an episode."""

    @abstractmethod
    def terminated(self, id: int, start: int, stop: int) -> np.ndarray:
        """[stop - start] bool; kept in the index, so that it costs no read."""

    @abstractmethod
    def forget(self) -> None:
        """Give back the memory of the block cache; what is read later is unpacked again."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Everything that can be asked for by name, memo included."""
        return (*(name.removeprefix("obs/") for name in self.columns), *self.memos)

    def read(
        self, id: int, start: int = 0, stop: int | None = None, fields: Iterable[str] | None = None
    ) -> Episode:
        """Rows start .. stop of an episode (all by default).

        `fields` picks modalities and memo by name, for example ("image", "mu"); None is all of them. Action,
        reward and terminated are always there.
        """
        rows = self.length(id)
        stop = rows if stop is None else stop
        if not 0 <= start <= stop <= rows:
            raise OneiroError(f"episode {id} has rows 0 to {rows}, asked for {start} to {stop}")
        modalities = [name.removeprefix("obs/") for name in self.columns if name.startswith("obs/")]
        wanted = [*modalities, *self.memos] if fields is None else [*fields]
        arrays = {}
        for name in {*wanted, "action", "reward"}:
            column = self.column(name)
            arrays[name] = np.empty((stop - start, *column.shape), column.dtype)
            self.copy(name, id, start, arrays[name])
        return Episode(
            id=id,
            obs={name: arrays[name] for name in wanted if name in modalities},
            action=arrays["action"],
            reward=arrays["reward"],
            terminated=self.terminated(id, start, stop),
            info=self.info(id),
            memo={name: arrays[name] for name in wanted if name in self.memos},
            start=start,
        )

    def episodes(self, fields: Iterable[str] | None = None) -> Iterator[Episode]:
        """Every episode, whole, in the order of ids; see `read` for `fields`."""
        fields = fields if fields is None else tuple(fields)
        for id in self.ids.tolist():
            yield self.read(id, fields=fields)
