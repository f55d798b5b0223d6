"""`RunFolder`: the folder of one run, locked while it is written to, and its recipe.

recipe.json     {"format": 1, "id", "recipe", "launches": [versions, machine, time and command of each start]}
metrics.jsonl  tensorboard/  checkpoint/  replay/  video/  report.html
.lock  .owner.json      who writes now; the operating system releases the lock even after kill -9
"""

import json
import os
import platform
import secrets
import socket
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock

import oneiro
from oneiro.errors import OneiroError
from oneiro.training.files import disk_errors, plain, write_json

FORMAT = 1
ABSENT = "(absent)"
_OWN = {".lock", ".owner.json"}
_LAUNCHES_KEPT = 100


def diff(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """Leaves of nested JSON that differ: {"world.z_dim": (32, 64)}; `ABSENT` on the side that has none."""
    before, after = _dotted(plain(old)), _dotted(plain(new))
    pairs = {name: (before.get(name, ABSENT), after.get(name, ABSENT)) for name in {**before, **after}}
    return {
        name: (a, b) for name, (a, b) in pairs.items() if a != b or isinstance(a, bool) != isinstance(b, bool)
    }


def _dotted(node: Any, name: str = "") -> dict[str, Any]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    flat: dict[str, Any] = {}
    for key, item in items:
        flat |= _dotted(item, f"{name}.{key}" if name else str(key))
    return flat or {name: node}


class RunFolder:
    """A run folder. `open` to train in it (locked), `read` to look at it (not locked)."""

    def __init__(self, path: Path, content: dict[str, Any], lock: filelock.BaseFileLock | None) -> None:
        self.path, self._content, self._lock = Path(path), content, lock

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe as JSON."""
        return self._content["recipe"]

    @property
    def id(self) -> str:
        """Eight hex digits drawn when the folder was made."""
        return self._content["id"]

    @property
    def launches(self) -> list[dict[str, Any]]:
        """Versions, machine, time and command of every start, oldest first (the last 100)."""
        return self._content["launches"]

    @property
    def metrics(self) -> Path:
        """One JSON line per event."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """Folder of `Checkpoints`."""
        return self.path / "checkpoint"

    @property
    def replay(self) -> Path:
        """Folder of the episode store."""
        return self.path / "replay"

    @property
    def video(self) -> Path:
        """Folder of films."""
        return self.path / "video"

    @property
    def report(self) -> Path:
        """The self-contained page of `oneiro report`."""
        return self.path / "report.html"

    @classmethod
    def open(
        cls,
        path: Path | str,
        recipe: dict[str, Any],
        command: str,
        free: Sequence[str] = (),
        defaults: dict[str, Any] | None = None,
    ) -> "RunFolder":
        """Make the folder, or go on in it if its recipe is the same; locked until `close`.

        `free` are dotted names (or their beginnings) that may differ from the recipe that began the run, for
        example "log"; recipe.json then takes the new values. A field that did not exist when the run began
        may be there now if it has its value of `defaults`. A folder whose run failed before it had done anything
        (a wrong name of an environment, say) takes any recipe.
        """
        path, recipe = Path(path), plain(recipe)
        _require_folder(path)
        with disk_errors("the run folder", path):
            path.mkdir(parents=True, exist_ok=True)
            lock = _acquire(path)
        try:
            write_json(path / ".owner.json", {"pid": os.getpid(), **_launch(command)})
            content = _read_recipe(path) or {"format": FORMAT, "id": secrets.token_hex(4), "launches": []}
            if _has_begun(path):
                _require_same(path, content.get("recipe", recipe), recipe, free, defaults or {})
            content["recipe"] = recipe
            content["launches"] = [*content["launches"], _launch(command)][-_LAUNCHES_KEPT:]
            write_json(path / "recipe.json", content)
        except BaseException:
            lock.release()
            raise
        return cls(path, content, lock)

    @classmethod
    def read(cls, path: Path | str) -> "RunFolder":
        """Open to look at: nothing is written, and a run may be going on in it."""
        path = Path(path)
        content = _read_recipe(path) if path.is_dir() else None
        if content is None:
            cause = (
                "has no recipe.json"
                if path.is_dir()
                else "is not a folder"
                if path.exists()
                else "does not exist"
            )
            raise OneiroError(
                f"{path} is not a run folder: it {cause}. Name a folder that `oneiro train` made."
            )
        return cls(path, content, None)

    def close(self) -> None:
        """Let other processes write here."""
        if self._lock is not None:
            (self.path / ".owner.json").unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _require_folder(path: Path) -> None:
    """Never mix a run into somebody's files."""
    if path.exists() and not path.is_dir():
        raise OneiroError(f"{path} is a file, not a folder. Name a new folder with --run.")
    if path.is_dir() and not (path / "recipe.json").exists():
        found = sorted(entry.name for entry in path.iterdir() if not _is_ours(entry.name))
        if found:
            hint = " To train on these episodes, name it with --origin." if "collection.json" in found else ""
            raise OneiroError(
                f"{path} is not a run folder: it has no recipe.json but holds {', '.join(found[:3])}"
                f"{' ...' if len(found) > 3 else ''}. Name a new or empty folder with --run.{hint}"
            )


def _has_begun(path: Path) -> bool:
    """There is an event, a checkpoint or a row that a run of another recipe could spoil."""
    return any(
        file.stat().st_size > 0
        for name in ("metrics.jsonl", "checkpoint", "replay", "scores")
        for file in (path / name, *(path / name).rglob("*"))
        if file.is_file()
    )


def _is_ours(name: str) -> bool:
    return name in _OWN or name.startswith(
        (".recipe.json.", "..owner.json.")
    )  # a kill may leave the last two


def _acquire(path: Path) -> filelock.BaseFileLock:
    lock = filelock.FileLock(path / ".lock", thread_local=False)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        try:
            owner = json.loads((path / ".owner.json").read_text(encoding="utf-8"))
            who = f"process {owner['pid']} on {owner['host']} since {owner['time']} ({owner['command']})"
            stop = f"stop it (kill {owner['pid']})"
        except (OSError, ValueError, KeyError):
            who, stop = "another process", "stop it"
        raise OneiroError(
            f"{path} is in use by {who}. Wait until it ends, {stop}, or train into another folder with --run."
        ) from None
    return lock


def _read_recipe(path: Path) -> dict[str, Any] | None:
    file = path / "recipe.json"
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content["format"]
        writer = (content.get("launches") or [{}])[-1].get("oneiro", "unknown")
        if version <= FORMAT:
            return {key: content[key] for key in ("format", "id", "recipe", "launches")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OneiroError(
            f"{file} is damaged ({error!r}). Restore it from a backup, or name another folder with --run."
        ) from error
    raise OneiroError(
        f"{path} was written by a newer oneiro ({writer}, run folder format {version}; this is "
        f"{oneiro.__version__}, format {FORMAT}). Upgrade: pip install --upgrade oneiro"
    )


def _require_same(path: Path, old: Any, new: Any, free: Sequence[str], defaults: dict[str, Any]) -> None:
    known = _dotted(plain(defaults))
    changed = {
        name: (before, now)
        for name, (before, now) in diff(old, new).items()
        if not any(name == allowed or name.startswith(allowed + ".") for allowed in free)
        and not (before == ABSENT and name in known and known[name] == now)
    }
    if changed:
        lines = [f"{name}: {a!r} there, {b!r} now" for name, (a, b) in sorted(changed.items())]
        more = f"\n  ... and {len(lines) - 20} more" if len(lines) > 20 else ""
        raise OneiroError(
            f"{path} is the run folder of another recipe:\n  " + "\n  ".join(lines[:20]) + more + "\n"
            "Name another folder with --run, or repeat the options that began this run."
        )


def _launch(command: str) -> dict[str, Any]:
    versions = {}
    for package in ("torch", "numpy", "gymnasium"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "none"
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "command": command,
        "oneiro": oneiro.__version__,
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpus": os.cpu_count(),
    }
