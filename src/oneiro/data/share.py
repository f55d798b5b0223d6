"""`Share`: which streams of a replay a process owns, when several processes train one run.

    stream     0  1  2  3  4  5  6  7
    of 3       0  1  2  0  1  2  0  1     the process that plays it, stores it and samples from it

What a checkpoint holds is about all streams, in their order, so that any number of processes can go on from it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Share:
    """Streams `index`, `index` + `count`, `index` + 2 `count`, ... Inside a process they are 0, 1, 2, ..."""

    index: int = 0
    count: int = 1

    def of(self, everything: Sequence[Any]) -> list[Any]:
        """Its part of a list with an entry for every stream."""
        return list(everything[self.index :: self.count])

    def outside(self, items: Iterable[Sequence[int]]) -> list[list[int]]:
        """(own stream, row) -> [stream, row] as others call it."""
        return [[self.index + self.count * int(stream), int(row)] for stream, row in items]

    def inside(self, items: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
        """The inverse; items of streams that others own are left out."""
        return [(s // self.count, row) for s, row in items if s % self.count == self.index]


def interleave(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """What each process has for its streams -> a list for all streams; the inverse of `Share.of`."""
    count = len(parts)
    return [parts[i % count][i // count] for i in range(sum(len(part) for part in parts))]
