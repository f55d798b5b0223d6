"""Memo of a segment: fixed-width records in a raw file, read and written in place.

A record is one row's latents, for example `deter` bfloat16 [512] and `stoch` uint8 [32] one after the other. They
change each time the row is trained on, so they are neither packed nor checked: a value that a power cut has torn has
the right shape and is replaced at the next visit. What was never written reads as zeros. Nothing is mapped.
"""

import errno
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneiro.errors import OneiroError

Memo = dict[str, Tensor]
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class MemoType:
    """Names, element types and shapes of a record."""

    columns: tuple[tuple[str, str, tuple[int, ...]], ...]
    """(name, torch dtype without "torch.", shape of one row)."""

    @classmethod
    def of(cls, memo: Memo) -> "MemoType":
        """The type of records [N, ...]."""
        names = sorted(memo)
        return cls(tuple((k, str(memo[k].dtype)[6:], tuple(memo[k].shape[1:])) for k in names))

    @classmethod
    def from_json(cls, data: Any) -> "MemoType":
        """Inverse of `to_json`."""
        return cls(tuple((name, dtype, tuple(shape)) for name, dtype, shape in data))

    def to_json(self) -> Any:
        """Plain values."""
        return [[name, dtype, list(shape)] for name, dtype, shape in self.columns]

    def __str__(self) -> str:
        return ", ".join(f"{n} {dtype}{list(shape)}" for n, dtype, shape in self.columns) or "nothing"

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each column of one record."""
        return tuple(_empty(dtype, shape).nbytes for _, dtype, shape in self.columns)

    @property
    def nbytes(self) -> int:
        """Bytes of one record."""
        return sum(self.sizes)

    def pack(self, memo: Memo) -> np.ndarray:
        """{name: [N, ...]} -> uint8 [N, nbytes]."""
        parts = []
        for (name, dtype, _), size in zip(self.columns, self.sizes, strict=True):
            x = memo[name].detach().to("cpu", getattr(torch, dtype)).contiguous()
            parts.append(x.reshape(len(x), -1).view(torch.uint8).reshape(len(x), size).numpy())
        return np.concatenate(parts, axis=1)

    def unpack(self, records: np.ndarray) -> Memo:
        """uint8 [N, nbytes] -> {name: [N, ...]}."""
        memo, start = {}, 0
        for (name, dtype, shape), size in zip(self.columns, self.sizes, strict=True):
            raw = torch.from_numpy(np.ascontiguousarray(records[:, start : start + size]))
            memo[name] = raw.view(getattr(torch, dtype)).reshape(len(records), *shape)
            start += size
        return memo


def read_records(path: Path, start: int, out: np.ndarray) -> None:
    """Fill `out` uint8 [N, nbytes] with records start .. start + N; zeros where nothing was written."""
    out[:] = 0
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        data = os.pread(handle, out.nbytes, start * out.shape[1])
    finally:
        os.close(handle)
    out.reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)


def write_records(path: Path, start: int, records: np.ndarray, rows: int) -> None:
    """Write `records` uint8 [N, nbytes] from record `start` on; a new file gets room for `rows` at once."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            room = rows * records.shape[1]
            if os.fstat(handle).st_size < room:
                _reserve(handle, room)
            data, place = np.ascontiguousarray(records).reshape(-1), start * records.shape[1]
            while len(data):
                written = os.pwrite(handle, data.data, place)
                data, place = data[written:], place + written
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OneiroError(
            f"the disk is full: the latents in {path} need {rows * records.shape[1]:,} bytes. Free some space, "
            "choose a run folder on another disk, or set a smaller data.capacity"
        ) from error


def _reserve(handle: int, size: int) -> None:
    """Room on the disk, so that later writes cannot fail for want of it."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, size)
            return
        except OSError as error:
            if error.errno in _FULL:
                raise
    os.ftruncate(handle, size)


def _empty(dtype: str, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=getattr(torch, dtype))
