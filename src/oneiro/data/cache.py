"""The unpacked blocks that were used last, within a number of bytes."""

from collections import OrderedDict
from threading import Lock

import numpy as np

from oneiro.data.chunks import Entry, locate


class BlockCache:
    """Reads rows of episodes through a bounded store of unpacked blocks. Safe to share between threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._blocks: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._lock = Lock()

    def copy(self, entry: Entry, name: str, start: int, out: np.ndarray) -> None:
        """Fill `out` [n, ...] with rows start .. start + n of a column, converting to its type."""
        column, first = locate(entry, name)
        done = 0
        while done < len(out):
            number, offset = divmod(start + done, column.block)
            rows = min(column.block, entry.rows - number * column.block)
            taken = self._block(entry, name, first + number, rows)[offset : offset + len(out) - done]
            out[done : done + len(taken)] = taken
            done += len(taken)

    def clear(self) -> None:
        """Forget every block."""
        with self._lock:
            self._blocks.clear()
            self.nbytes = 0

    def _block(self, entry: Entry, name: str, block: int, rows: int) -> np.ndarray:
        """One unpacked block; its place in the cache is that of the block used last."""
        key = (entry.chunk.key, block)
        with self._lock:
            found = self._blocks.get(key)
            if found is not None:
                self._blocks.move_to_end(key)
                return found
        array = entry.chunk.columns[name].unpack(entry.chunk.payload(block), rows)
        with self._lock:
            if key not in self._blocks and array.nbytes <= self.limit:
                self._blocks[key] = array
                self.nbytes += array.nbytes
                while self.nbytes > self.limit:
                    self.nbytes -= self._blocks.popitem(last=False)[1].nbytes
        return array
