"""`Collection`: a replay folder made by `oneiro collect`, with a note of what was recorded there and by whom.

collection.json  {"format": 1, "source": {env, policy, seed}, "launches": [...]}
chunks/          the episodes (`EpisodeStore`)
.lock            held while a process writes
"""

import sys
import time
from pathlib import Path
from typing import Any

import filelock

import oneiro
from oneiro.data.store import EpisodeStore
from oneiro.envs.config import HOW_IT_RUNS
from oneiro.errors import OneiroError
from oneiro.evaluation.stats import summarize
from oneiro.training.files import disk_errors, write_json
from oneiro.training.given import FORMAT, NOTE, is_collection, read_note
from oneiro.training.run_folder import diff

FREE = tuple(f"env.values.{name}" for name in HOW_IT_RUNS)


class Collection:
    """A folder of episodes of one source, opened for writing; a context manager that flushes at its end."""

    def __init__(self, path: Path, source: dict[str, Any], command: str, *, ram: int, capacity: int) -> None:
        self.path = path
        _require_ours(path)
        with disk_errors("the replay folder", path):
            path.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(path / ".lock", thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise OneiroError(
                f"{path} is in use by another process; wait for it, or name another --out"
            ) from None
        try:
            content = read_note(path)
            _require_same(path, content.get("source", source), source)
            launch = {"time": time.strftime("%Y-%m-%d %H:%M:%S%z"), "command": command}
            launches = [*content.get("launches", []), launch | {"oneiro": oneiro.__version__}][-100:]
            write_json(path / NOTE, {"format": FORMAT, "source": source, "launches": launches})
            self.store = EpisodeStore(path, ram=ram, capacity=capacity or sys.maxsize)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> "Collection":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.store.close()
        finally:
            self._lock.release()

    def summary(self) -> dict[str, Any]:
        """Episodes, rows, bytes, and scores (sums of rewards)."""
        store = self.store
        infos = {int(id): store.info(int(id)) for id in store.ids}
        scores = [
            float(info["score"]) if "score" in info else float(store.read(id, fields=()).reward.sum())
            for id, info in infos.items()
        ]
        return {
            "folder": str(self.path),
            "episodes": len(store),
            "rows": store.rows,
            "score": summarize(scores).to_json() if scores else None,
            "bytes": store.nbytes,
            "crashed": sum(bool(info.get("crashed")) for info in infos.values()),
        }


def _require_ours(path: Path) -> None:
    """Never mix episodes into somebody's files, nor into the replay of a run."""
    if path.exists() and not path.is_dir():
        raise OneiroError(f"{path} is a file; name a new folder with --out")
    if path.is_dir() and not is_collection(path):
        found = sorted(p.name for p in path.iterdir() if p.name != ".lock" and not p.name.endswith(".tmp"))
        if found:
            raise OneiroError(
                f"{path} was not made by `oneiro collect` and holds {', '.join(found[:3])}; name a new or empty "
                "folder with --out"
            )


def _require_same(path: Path, old: Any, new: Any) -> None:
    changed = {name: pair for name, pair in diff(old, new).items() if name not in FREE}
    if changed:
        lines = [f"{name}: {a!r} there, {b!r} now" for name, (a, b) in sorted(changed.items())]
        raise OneiroError(
            f"{path} holds episodes of another source:\n  " + "\n  ".join(lines[:20]) + "\n"
            "Name another folder with --out, or repeat the options that began it."
        )
