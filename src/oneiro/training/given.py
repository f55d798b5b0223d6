"""`Given`: episodes of `oneiro collect`, played or imported, are the experience a run begins with.

    data/takecover/chunks/*.chunk --hard links, or copies--> RUN/replay/chunks/       once, before the first checkpoint

A file of episodes never changes once it is written, so the two folders share room on the disk and nothing else: what
is collected or dropped later in one of them is not seen in the other.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import oneiro
from oneiro.data.columns import Column
from oneiro.data.store import EpisodeStore
from oneiro.envs.config import HOW_IT_RUNS
from oneiro.errors import OneiroError
from oneiro.spaces import Spaces
from oneiro.training.files import disk_errors, sync
from oneiro.training.recipe import to_json
from oneiro.training.run_folder import RunFolder, diff
from oneiro.training.schedule import Stage, index_of

if TYPE_CHECKING:
    from oneiro.training.run import Run

NOTE, FORMAT = "collection.json", 1


@dataclass(frozen=True, kw_only=True)
class Given:
    """A folder of episodes; the stages of the run that would gather some are skipped, or all before `stage`."""

    folder: Path
    stage: str = ""  # first stage that is done; "" = the first one that does not gather

    @classmethod
    def of(cls, folder: RunFolder) -> "Given | None":
        """As noted in the run folder's recipe.json."""
        saved = folder.recipe.get("origin") or {}
        return cls(folder=Path(saved["collection"]), stage=saved["stage"]) if "collection" in saved else None

    def first(self, named: Sequence[tuple[str, Stage]]) -> int:
        """Index of the first stage that is done; OneiroError if there is none of that name."""
        if self.stage:
            return index_of(self.stage, named)
        return next((i for i, (_, stage) in enumerate(named) if not stage.gathers), 0)

    def link(self, run: "Run") -> None:
        """Put the episodes into the replay of a run that has none yet; OneiroError if it cannot take them."""
        self.first(run.stages)  # before a wrong name leaves files behind
        note = read_note(self.folder)
        with EpisodeStore(self.folder, mode="r") as store:
            if not len(store):
                raise OneiroError(f"{self.folder} holds no episodes; collect some first")
            _require_spaces(self.folder, store.columns, run.spaces)
        there = note.get("source", {}).get("env")
        here = {"type": type(run.recipe.env).__name__, "values": to_json(run.recipe.env)}
        changed = (
            {name.removeprefix("values."): pair for name, pair in diff(there, here).items()} if there else {}
        )
        words = [
            f"{name} {a!r} there, {b!r} here" for name, (a, b) in changed.items() if name not in HOW_IT_RUNS
        ]
        if words:
            run.progress.note(f"{self.folder} was recorded with other settings: {'; '.join(words)}")
        target = run.folder.replay / "chunks"
        with disk_errors("the replay", target):
            target.mkdir(parents=True, exist_ok=True)
            for chunk in sorted((self.folder / "chunks").glob("*.chunk")):
                _link(chunk, target / chunk.name)
            sync(target)


def is_collection(path: Path) -> bool:
    """True if `oneiro collect` made the folder."""
    return (path / NOTE).is_file()


def read_note(folder: Path) -> dict[str, Any]:
    """The note in a folder of episodes, {} if there is none."""
    note = folder / NOTE
    if not note.exists():
        return {}
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        version = int(content["format"])
        content["source"]
    except (ValueError, KeyError, TypeError) as error:
        raise OneiroError(f"{note} is damaged ({error!r}); restore it, or name another folder") from error
    if version > FORMAT:
        raise OneiroError(
            f"{folder} was written by a newer oneiro (format {version}; this is {oneiro.__version__}, format "
            f"{FORMAT}). Upgrade: pip install --upgrade oneiro"
        )
    return content


def _require_spaces(folder: Path, columns: dict[str, Column], spaces: Spaces) -> None:
    found = {name: c.shape for name, c in columns.items() if name == "action" or name.startswith("obs/")}
    wanted = {f"obs/{name}": tuple(shape) for name, shape in spaces.obs.items()}
    wanted["action"] = (spaces.action.dim,)
    names = sorted(name for name in found | wanted if found.get(name) != wanted.get(name))
    if names:
        lines = [f"{name}: {found.get(name)} there, {wanted.get(name)} here" for name in names]
        raise OneiroError(
            f"{folder} holds episodes that the recipe's environment could not have made:\n  "
            + "\n  ".join(lines)
            + "\nCollect in the recipe's environment, or set --env options that give these shapes."
        )


def _link(chunk: Path, target: Path) -> None:
    """The same file under another name, or a copy where the disk is another; there as a whole or not at all."""
    if target.exists():
        return
    try:
        os.link(chunk, target)
    except OSError:
        part = target.with_suffix(".tmp")
        shutil.copyfile(chunk, part)
        sync(part)
        os.replace(part, target)
