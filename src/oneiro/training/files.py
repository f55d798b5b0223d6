"""Durable files: JSON and safetensors that reach the disk whole or not at all, and errors a user can mend.

A file is written beside its place, synced, then renamed over it. `rename` is atomic, so a process killed at any
moment leaves the old file or the new one.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from oneiro.errors import OneiroError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def disk_errors(what: str, path: Path, num_bytes: int = 0) -> Iterator[None]:
    """Turn a failed write of `what` under `path` into an `OneiroError` that names cause and remedy."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _errno(error)
        if number is None:
            raise
        place = _existing(path)
        if number in _FULL:
            free = shutil.disk_usage(place).free
            short = max(num_bytes - free, num_bytes // 10, 2**20)
            raise OneiroError(
                f"the disk is full: {what} ({megabytes(num_bytes)}) does not fit into {path.parent} "
                f"({megabytes(free)} free). Free at least {megabytes(short)} at {place}, then repeat the "
                "same command; what was saved before is untouched."
            ) from error
        raise OneiroError(
            f"cannot write {what} to {path}: {os.strerror(number)}. Make {place} writable, or choose another "
            "folder with --run, then repeat the same command."
        ) from error


def _errno(error: OSError | SafetensorError) -> int | None:
    """The error number; safetensors hands it on as text only."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None


def _existing(path: Path) -> Path:
    """The nearest folder at or above `path` that exists."""
    return next((p for p in (path, *path.parents) if p.is_dir()), Path("."))


def megabytes(num_bytes: float) -> str:
    """Size for people: 1 MB = 1e6 bytes."""
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes < 1e7 else f"{num_bytes / 1e6:,.0f} MB"


def sync(path: Path) -> None:
    """Force a file, or the list of names in a folder, to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open folders, and needs no such call
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Checksum of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(value: Any) -> Any:
    """`value` as strict JSON has it: tuples as lists, "NaN", "Infinity" and "-Infinity" as strings."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by strict JSON, atomically and durably."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path.name, path, len(text)):
        try:
            beside.write_text(text, encoding="utf-8")
            sync(beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        sync(path.parent)


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write named tensors (any device, any strides, shared storage allowed) and sync the file."""
    ready: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().to("cpu").contiguous()
        storage = tensor.untyped_storage().data_ptr()
        ready[name] = tensor.clone() if storage in storages else tensor  # tied weights are written twice
        storages.add(storage)
    save_file(ready, path, metadata)
    sync(path)


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that `tensors` take on disk, without the header."""
    return sum(
        tensor.numel() * torch.empty(0, dtype=tensor.dtype).element_size() for tensor in tensors.values()
    )
