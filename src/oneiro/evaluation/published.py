"""Published scores, by task: what a run can be compared with. The numbers are the JSON files of `scores/`.

A task is named as environments name it, "suite/task": `atari100k/ms_pacman`, `dmc-proprio/walker_walk`. Upper
case, spaces and underscores in the second half do not matter (`atari100k/MsPacman` is the same).

Every method says how its figure was read out (training episodes or a separate evaluation) and, where it is
known, under which protocol (sticky actions, what a lost life does), because these move scores. Where the runs of a
method were released they are here too; without them a pooled statistic of it cannot be computed.
"""

import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np

from oneiro.errors import OneiroError

ALIASES = {"dmc-proprio/ballincupcatch": "cup_catch", "dmc-vision/ballincupcatch": "cup_catch"}


@dataclass(frozen=True, kw_only=True)
class Method:
    """What one publication reports on one suite. Raw scores, not normalised."""

    name: str
    source: str
    status: str
    """Whether the numbers were recomputed from released runs, and what is not verified."""
    readout: str
    """What a score is: an evaluation of so many episodes, or training episodes of a window."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """What is known of sticky actions, life loss, action set, action repeat."""
    runs: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """{task: one score a run}; empty if the runs were not released."""
    per_task: Mapping[str, float] = field(default_factory=dict)
    """{task: mean as printed}, also where the runs are known but do not give exactly that."""
    published: Mapping[str, float] = field(default_factory=dict)
    """Aggregates over the whole suite as printed: mean, median, iqm, optimality_gap (human-normalised on Atari)."""
    note: str = ""

    def mean(self, task: str) -> float | None:
        """Its score on a task: as printed, else the mean of the runs; None if there is neither."""
        if task in self.per_task:
            return float(self.per_task[task])
        return float(np.mean(self.runs[task])) if task in self.runs else None


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks with one protocol, and what was published on them."""

    name: str
    about: str
    frames: int
    """Frames of the environment a run may see."""
    random: Mapping[str, float]
    human: Mapping[str, float]
    methods: Mapping[str, Method]

    @property
    def tasks(self) -> list[str]:
        """Every task that has a published score."""
        found = dict.fromkeys(self.human)
        for method in self.methods.values():
            found |= dict.fromkeys([*method.per_task, *method.runs])
        return list(found)

    @property
    def is_normalised(self) -> bool:
        """True if a human and a random score of every task are known."""
        return bool(self.human)

    def method(self, name: str) -> Method:
        """By name, upper case and punctuation aside; OneiroError with the nearest for an unknown one."""
        found = {_plain(known): method for known, method in self.methods.items()}.get(_plain(name))
        if found is None:
            raise OneiroError(
                f"no published scores of {name!r} on {self.name}. {_nearest(name, self.methods)}"
            )
        return found


@functools.cache
def suites() -> dict[str, Suite]:
    """All suites, by name."""
    folder = resources.files("oneiro.evaluation").joinpath("scores")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".json")), key=lambda f: f.name)
    loaded = [_suite(json.loads(file.read_text(encoding="utf-8"))) for file in files]
    return {suite.name: suite for suite in loaded}


def lookup(task: str) -> tuple[Suite, str] | None:
    """(suite, name of the task in it) of "suite/task"; None if nothing was published on it that is known here."""
    name, _, rest = task.partition("/")
    suite = suites().get(name)
    if suite is None:
        return None
    rest = ALIASES.get(f"{name}/{_plain(rest)}", rest)
    return next(((suite, known) for known in suite.tasks if _plain(known) == _plain(rest)), None)


def require_methods(suite_names: Sequence[str], names: Sequence[str]) -> None:
    """OneiroError with the nearest match unless every name is known in one of the suites."""
    known = {method for suite in suite_names if suite in suites() for method in suites()[suite].methods}
    if names and not known:
        raise OneiroError(
            f"there are no published scores on these tasks, so nothing for --against {names[0]}"
        )
    for name in names:
        if _plain(name) not in map(_plain, known):
            raise OneiroError(f"no published scores of {name!r} on these tasks. {_nearest(name, known)}")


def _suite(record: dict[str, Any]) -> Suite:
    methods = {name: Method(name=name, **values) for name, values in record["methods"].items()}
    return Suite(
        name=record["suite"],
        about=record["about"],
        frames=record["frames"],
        random=record["random"],
        human=record["human"],
        methods=methods,
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    """As `errors.nearest`, upper case and punctuation aside."""
    spelled = {_plain(each): each for each in known}
    close = difflib.get_close_matches(_plain(name), spelled, n=1, cutoff=0.5)
    return (
        f"Did you mean {spelled[close[0]]!r}?" if close else f"Known: {', '.join(sorted(spelled.values()))}."
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
