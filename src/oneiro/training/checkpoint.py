"""`Checkpoints`: atomic, checksummed, the last K kept; a damaged newest one falls back to the one before.

    checkpoint/000000000300/
        weights.safetensors     one file for each entry of `tensors`
        state.safetensors       tensors found inside `state`, if any
        state.json              {"format": 1, "step", "time", "oneiro", "state"}
        checksums.json          {"files": {name: {"bytes", "sha256"}}}; this layout holds for every format

A checkpoint is written into a hidden folder beside its place, synced and renamed, so that a folder with a
number is complete unless the disk damaged it later. Loading verifies every checksum before a file is parsed;
nothing is ever unpickled.
"""

import json
import re
import shutil
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

import oneiro
from oneiro.errors import OneiroError
from oneiro.training.files import disk_errors, num_bytes, sha256, sync, write_json, write_safetensors
from oneiro.training.state import flatten, unflatten

FORMAT = 1
_NUMBER = re.compile(r"(\d{12,})(?:\.(\d+))?")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What `Checkpoints.load` found."""

    path: Path
    step: int
    tensors: dict[str, dict[str, Tensor]]
    """File (without suffix) -> name -> tensor on the CPU."""
    state: Any
    """The tree given to `save`, tensors and non-finite floats included."""


class Checkpoints:
    """The checkpoints of one run. One process may save; any number may load at the same time."""

    def __init__(self, folder: Path, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep = {keep}: at least one checkpoint must be kept; set it to 1 or more")
        self.folder, self.keep = Path(folder), keep

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Any = None) -> Path:
        """Write a checkpoint, then delete all but the last `keep`. Returns its folder.

        `state` is any tree that `flatten` takes. Checkpoints of later steps belong to a future that was given
        up (they were damaged, and the run went on from an earlier one): they are deleted too.
        """
        state_tensors, state_json = flatten(state)
        files = {**tensors, "state": state_tensors} if state_tensors else dict(tensors)
        if state_tensors and "state" in tensors:
            raise ValueError('"state" is the file of tensors inside `state`; give these tensors another name')
        head = {"format": FORMAT, "step": step, "time": time.time(), "oneiro": oneiro.__version__}
        place = self._free_place(step)
        temporary = self.folder / f".writing-{place.name}"
        size = sum(num_bytes(flat) for flat in files.values()) + 2**16
        with disk_errors(f"the checkpoint of step {step}", temporary, size):
            self._sweep()
            temporary.mkdir(parents=True)
            try:
                _write(temporary, files, {**head, "state": state_json})
                temporary.rename(place)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            sync(self.folder)
        self._prune(step, place)
        return place

    def load(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; None if there is none at all.

        Each damaged one is skipped with a warning that names file and cause; OneiroError if all are damaged.
        """
        causes: list[str] = []
        for path in reversed(self.places()):
            try:
                checkpoint = _read(path)
            except _Damaged as error:
                if not path.exists():  # a process that saves has just deleted it: there are newer ones
                    return self.load()
                causes.append(f"{path.name}/{error}")
                continue
            for cause in causes:
                warnings.warn(
                    f"damaged checkpoint skipped: {self.folder / cause}; step {checkpoint.step} is used",
                    stacklevel=2,
                )
            return checkpoint
        if causes:
            raise OneiroError(
                f"none of the checkpoints in {self.folder} can be read:\n  " + "\n  ".join(causes) + "\n"
                "Copy one back from a backup, or delete this folder to train again from the start."
            )
        return None

    def places(self) -> list[Path]:
        """The folders of all checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted((path for path in self.folder.iterdir() if _NUMBER.fullmatch(path.name)), key=_order)

    def _free_place(self, step: int) -> Path:
        """A folder that does not exist yet: saving the same step again must not pass through a gap."""
        place, again = self.folder / f"{step:012d}", 0
        while place.exists():
            again += 1
            place = self.folder / f"{step:012d}.{again}"
        return place

    def _prune(self, step: int, newest: Path) -> None:
        later = [path for path in self.places() if _order(path)[0] > step]
        same = [path for path in self.places() if _order(path)[0] == step and path != newest]
        earlier = [path for path in self.places() if _order(path)[0] < step]
        spared = earlier[len(earlier) - (self.keep - 1) :] if len(earlier) >= self.keep else earlier
        for path in (*later, *same, *(path for path in earlier if path not in spared)):
            hidden = path.with_name(f".deleting-{path.name}")  # half a checkpoint is never visible
            path.rename(hidden)
            shutil.rmtree(hidden, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what a killed process left behind."""
        for pattern in (".writing-*", ".deleting-*"):
            for path in self.folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


def _order(path: Path) -> tuple[int, int]:
    found = _NUMBER.fullmatch(path.name)
    assert found, path
    return int(found[1]), int(found[2] or 0)


def _write(folder: Path, files: Mapping[str, Mapping[str, Tensor]], head: dict[str, Any]) -> None:
    for name, flat in files.items():
        write_safetensors(folder / f"{name}.safetensors", flat)
    write_json(folder / "state.json", head)
    sums = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())
    }
    write_json(folder / "checksums.json", {"files": sums})
    sync(folder)


class _Damaged(Exception):  # noqa: N818 - never leaves this file
    """`file: cause` of a checkpoint that cannot be trusted."""


def _read(path: Path) -> Checkpoint:
    names = _verify(path)
    try:
        head = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if head["format"] > FORMAT:
            raise OneiroError(
                f"{path} was written by a newer oneiro ({head['oneiro']}, checkpoint format "
                f"{head['format']}; this is {oneiro.__version__}, format {FORMAT}). "
                "Upgrade: pip install --upgrade oneiro"
            )
        tensors = {}
        for name in names:
            if name.endswith(".safetensors"):
                tensors[name.removesuffix(".safetensors")] = _tensors(path / name)
        state = unflatten(tensors.pop("state", {}), head["state"])
        return Checkpoint(path=path, step=head["step"], tensors=tensors, state=state)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _Damaged(f"state.json: {error!r}") from error


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        # copied: a mapped file must not be deleted under its tensors
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise _Damaged(f"{path.name}: not a safetensors file ({error})") from error
    except RuntimeError as error:  # torch's word for a file that has just been deleted
        if path.exists():
            raise
        raise _Damaged(f"{path.name}: missing") from error


def _verify(path: Path) -> list[str]:
    """Names of the files of a checkpoint, all of which have the size and checksum noted for them."""
    try:
        listed = json.loads((path / "checksums.json").read_text(encoding="utf-8"))["files"]
        sums = {str(name): (entry["bytes"], entry["sha256"]) for name, entry in listed.items()}
    except FileNotFoundError as error:
        raise _Damaged("checksums.json: missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Damaged(f"checksums.json: unreadable ({error!r})") from error
    if "state.json" not in sums:
        raise _Damaged("checksums.json: does not list state.json")
    for name, (size, digest) in sums.items():
        file = path / name
        if Path(name).name != name or not file.is_file():
            raise _Damaged(f"{name}: missing")
        try:
            found = file.stat().st_size
            if found != size:
                raise _Damaged(f"{name}: {found} bytes instead of {size}")
            if sha256(file) != digest:
                raise _Damaged(f"{name}: checksum differs (damaged content)")
        except OSError as error:
            raise _Damaged(f"{name}: {error}") from error
    return list(sums)
