"""How one column of rows becomes bytes: small blocks of consecutive rows, filtered and compressed.

A block holds about 96 KiB of raw rows (8 frames of 3 x 64 x 64), so that a single frame can be read without
unpacking its whole episode. Images are stored as differences, plane from plane and frame from frame, which
costs two additions and makes zstd's output a fifth smaller (measured: results/store_compression.md).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import zstandard

from oneiro.errors import OneiroError

BLOCK_BYTES = 96 * 1024
"""Raw size of a block, rounded down to whole rows."""
CODECS = ("raw", "zstd", "delta+zstd")


@dataclass(frozen=True)
class Column:
    """Type of a column and how it is packed."""

    dtype: str
    """NumPy's name with byte order, for example "|u1" or "<f4"."""
    shape: tuple[int, ...]
    """Of one row."""
    codec: str
    """"raw", "zstd", or "delta+zstd" for images."""
    block: int
    """Rows per block."""
    level: int = 1
    """Of zstd. Higher levels of zstd gain nothing on frames that are stored as differences."""

    @classmethod
    def of(cls, array: np.ndarray, compress: bool) -> "Column":
        """The column that can hold `array` [T, ...]."""
        shape = array.shape[1:]
        bytes_per_row = max(1, array.dtype.itemsize * int(np.prod(shape)))
        packed = "delta+zstd" if array.dtype == np.uint8 and len(shape) == 3 else "zstd"
        return cls(
            array.dtype.str, shape, packed if compress else "raw", max(1, BLOCK_BYTES // bytes_per_row)
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Column":
        """Inverse of `to_json`."""
        if data["codec"] not in CODECS:
            raise OneiroError(
                f"columns packed with {data['codec']!r} are of a newer version of oneiro; update it"
            )
        return cls(data["dtype"], tuple(data["shape"]), data["codec"], data["block"], data["level"])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def holds(self, array: np.ndarray) -> bool:
        """True if rows of `array` are rows of this column."""
        return array.dtype.str == self.dtype and array.shape[1:] == self.shape

    def blocks(self, rows: int) -> int:
        """Number of blocks that `rows` rows take."""
        return -(-rows // self.block)

    def pack(self, array: np.ndarray) -> list[bytes]:
        """Rows [T, ...] -> the bytes of each block."""
        pieces = (array[start : start + self.block] for start in range(0, len(array), self.block))
        if self.codec == "raw":
            return [piece.tobytes() for piece in pieces]
        pack = zstandard.ZstdCompressor(level=self.level).compress
        if self.codec == "zstd":
            return [pack(np.ascontiguousarray(piece).data) for piece in pieces]
        return [pack(_difference(piece).data) for piece in pieces]

    def unpack(self, data: bytes, rows: int) -> np.ndarray:
        """The bytes of one block -> its rows [rows, ...]."""
        if self.codec != "raw":
            data = zstandard.ZstdDecompressor().decompress(data)
        array = np.frombuffer(data, self.dtype).reshape(rows, *self.shape)
        return _accumulate(array) if self.codec == "delta+zstd" else array


def _difference(image: np.ndarray) -> np.ndarray:
    """uint8 [T C H W] -> each plane minus the one before, each frame minus the one before (modulo 256)."""
    planes = image.copy()
    planes[:, 1:] -= image[:, :-1]
    frames = planes.copy()
    frames[1:] -= planes[:-1]
    return frames


def _accumulate(difference: np.ndarray) -> np.ndarray:
    """Inverse of `_difference`; whole frames and planes at a time, many times faster than `np.add.accumulate`."""
    image = difference.copy()
    for t in range(1, len(image)):
        image[t] += image[t - 1]
    for c in range(1, image.shape[1]):
        image[:, c] += image[:, c - 1]
    return image
