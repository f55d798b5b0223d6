"""Several runs side by side: seeds of the same system become one entry with an interval, tasks become aggregates.

    RunResult  --read-out-->  one score a run  --group-->  cells (system, task)  -->  table, aggregates

Scores that do not mean the same are not mixed: all runs of a task (of a suite, where tasks are aggregated) must have
the same settings and the same read-out. What is left out is listed with its reason, never dropped in silence.
"""

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from oneiro.errors import OneiroError
from oneiro.evaluation.aggregate import (
    Aggregates,
    Estimate,
    aggregate,
    aggregate_means,
    normalise,
    probability_of_improvement,
)
from oneiro.evaluation.grouping import (
    differing_settings,
    labels,
    require_alike,
    require_distinct,
    require_seeds,
)
from oneiro.evaluation.published import Method, Suite, lookup, require_methods, suites
from oneiro.evaluation.run_result import RunResult
from oneiro.evaluation.stats import Summary, summarize
from oneiro.evaluation.training_episodes import LAST

Readout = Literal["auto", "evaluation", "training", "training-2023"]
NEARLY = 0.99
"""A run that has seen this share of the frames is read out: the last episode rarely ends on the last frame."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One system on one task."""

    seeds: list[int]
    scores: list[float]
    """One a run, raw."""
    normalised: list[float]
    """Human-normalised; empty where no human score is known."""

    @property
    def summary(self) -> Summary:
        """Mean with its 95 % interval over the runs (Student's t)."""
        return summarize(self.scores)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `oneiro compare` shows."""

    readout: str
    """What a score is, in words."""
    tasks: list[str]
    labels: list[str]
    """Systems, in the order in which they were named."""
    cells: Mapping[tuple[str, str], Cell]
    """By (label, task)."""
    random: Mapping[str, float]
    human: Mapping[str, float]
    methods: list[str]
    aggregates: Mapping[str, Mapping[str, Aggregates]]
    """By suite and label or method; over the tasks that every label has."""
    aggregated: Mapping[str, list[str]]
    """Those tasks, by suite."""
    improvement: Mapping[str, Mapping[str, Estimate]]
    """By suite and name: probability that a run of the first label beats one of `name`."""
    left_out: list[str]
    notes: list[str]
    runs: Mapping[tuple[str, str], list[RunResult]]
    """What each cell is made of, in the order of its scores; also runs whose score is left out."""
    is_evaluation: bool
    """Scores of a separate evaluation; False: of training episodes."""
    ends: Mapping[str, float]
    """Frames at which training episodes are read out, by task."""

    def published(self, task: str) -> dict[str, float]:
        """{method: its score} on a task."""
        found = lookup(task)
        if found is None:
            return {}
        suite, name = found
        known = {m: suite.methods[m].mean(name) for m in self.methods if m in suite.methods}
        return {m: score for m, score in known.items() if score is not None}


def compare(
    results: Sequence[RunResult],
    *,
    readout: Readout = "auto",
    against: Sequence[str] = (),
    at: int | None = None,
    share: float = LAST,
    mixed: bool = False,
) -> Comparison:
    """Group runs by system and task. OneiroError for runs that cannot be compared.

    `against`: published methods, any spelling. `at`: frames of the game at which training episodes are read
    out (default: those of the suite, else the runs' own budget); `share` of them count. `mixed` shows runs with
    different settings side by side, as different systems, where they are otherwise refused.
    """
    require_distinct(results)
    chosen = _choose(results) if readout == "auto" else readout
    evaluated = chosen == "evaluation"
    differing = differing_settings(results, evaluated=evaluated)
    if not mixed:
        require_alike(differing)
    tasks = list(dict.fromkeys(r.task for r in results))
    require_methods([task.partition("/")[0] for task in tasks], against)
    methods = [_spelling(name, tasks) for name in against]
    ends = {task: _end([r for r in results if r.task == task], at) for task in tasks}
    groups: dict[tuple[str, str], list[RunResult]] = defaultdict(list)
    systems = labels(results, differing, evaluated=evaluated)
    for result, label in zip(results, systems, strict=True):
        groups[label, result.task].append(result)
    left_out: list[str] = []
    cells: dict[tuple[str, str], Cell] = {}
    for key, members in groups.items():
        require_seeds(members)
        cell = _cell(members, chosen, ends[key[1]], share, left_out)
        if cell is not None:
            cells[key] = cell
    if not cells:
        raise OneiroError("no run has a score yet:\n  " + "\n  ".join(left_out))
    names = [label for label in dict.fromkeys(systems) if any(label == key[0] for key in cells)]
    constants = {task: found for task in tasks if (found := lookup(task))}
    known = {
        "random": {t: s.random[n] for t, (s, n) in constants.items() if n in s.random},
        "human": {t: s.human[n] for t, (s, n) in constants.items() if n in s.human},
    }
    found = Comparison(
        readout=_words(chosen, share, ends),
        tasks=tasks,
        labels=names,
        cells=cells,
        random=_measured_random(results) | known["random"],
        human=known["human"],
        methods=methods,
        aggregates={},
        aggregated={},
        improvement={},
        left_out=left_out,
        notes=[],
        runs=dict(groups),
        is_evaluation=evaluated,
        ends=ends,
    )
    return _with_aggregates(found)


def _choose(results: Sequence[RunResult]) -> Readout:
    if all(r.evaluation is not None for r in results):
        return "evaluation"
    if all(len(r.episodes) for r in results):
        return "training"
    lines = [
        f"{r.path}: {'has' if r.evaluation else 'no'} evaluation, {len(r.episodes):,} training episodes"
        for r in results
    ]
    raise OneiroError(
        "these runs have no kind of score in common:\n  "
        + "\n  ".join(lines)
        + "\nEvaluate the others (oneiro evaluate RUN --save), or name one kind with --readout"
    )


def _cell(
    members: Sequence[RunResult], readout: Readout, end: float, share: float, left_out: list[str]
) -> Cell | None:
    seeds, scores = [], []
    for run in members:
        score = _score(run, readout, end, share)
        if isinstance(score, str):
            left_out.append(f"{run.path}: {score}")
        else:
            seeds.append(run.seed)
            scores.append(score)
    if not scores:
        return None
    suite, name = lookup(members[0].task) or (None, "")
    scaled = []
    if suite is not None and suite.is_normalised:
        scaled = [normalise(score, suite.random[name], suite.human[name]) for score in scores]
    return Cell(seeds=seeds, scores=scores, normalised=scaled)


def _score(run: RunResult, readout: Readout, end: float, share: float) -> float | str:
    """Of one run, or why it has none."""
    if readout == "evaluation":
        return run.evaluation.summary.mean if run.evaluation else "was not evaluated (oneiro evaluate --save)"
    if not len(run.episodes):
        return "no training episode was logged"
    if run.frames < NEARLY * end:
        return f"has seen {run.frames:,.0f} of {end:,.0f} frames (--at {run.frames:.0f} compares earlier)"
    if readout == "training-2023":
        score = run.episodes.final_2023(end)
        return "no episode ended in time" if score is None else score
    score = run.episodes.final(end, share)
    if score is None:
        return (
            f"no episode ended in frames {end * (1 - share):,.0f} to {end:,.0f} (--share widens the window)"
        )
    return score


def _end(results: Sequence[RunResult], at: int | None) -> float:
    if at is not None:
        return float(at)
    if found := lookup(results[0].task):
        return float(found[0].frames)
    budgets = [r.budget for r in results if r.budget]
    return float(min(budgets) if budgets else max((r.frames for r in results), default=0))


def _words(readout: Readout, share: float, ends: Mapping[str, float]) -> str:
    if readout == "evaluation":
        return "separate evaluation of the final policy, mean over its episodes"
    frames = sorted(set(ends.values()))
    at = f"{frames[0]:,.0f}" if len(frames) == 1 else f"{frames[0]:,.0f} to {frames[-1]:,.0f}"
    if readout == "training-2023":
        return f"training episodes, sampling policy, 92.5 to 97.5 % of {at} frames, empty bins filled forward"
    return f"training episodes, sampling policy, last {100 * share:g} % of {at} frames"


def _measured_random(results: Sequence[RunResult]) -> dict[str, float]:
    """Mean of what the runs' random rivals scored, by task."""
    scores: dict[str, list[float]] = defaultdict(list)
    for r in results:
        if r.random is not None:
            scores[r.task].append(r.random.summary.mean)
    return {task: float(np.mean(found)) for task, found in scores.items()}


def _with_aggregates(found: Comparison) -> Comparison:
    aggregates: dict[str, dict[str, Aggregates]] = {}
    aggregated: dict[str, list[str]] = {}
    improvement: dict[str, dict[str, Estimate]] = {}
    for suite in suites().values():
        common = [
            task
            for task in found.tasks
            if (pair := lookup(task))
            and pair[0] is suite
            and all((k, task) in found.cells for k in found.labels)
        ]
        if not suite.is_normalised or len(common) < 2:
            continue
        aggregated[suite.name] = common
        runs = {label: {t: found.cells[label, t].normalised for t in common} for label in found.labels}
        aggregates[suite.name] = {label: aggregate(runs[label]) for label in found.labels}
        for name in found.methods:
            if name not in suite.methods:
                continue
            method_runs, summary = method_aggregates(suite, suite.methods[name], common)
            if summary is not None:
                aggregates[suite.name][name] = summary
                runs[name] = method_runs
        first = found.labels[0]
        improvement[suite.name] = {
            name: probability_of_improvement(runs[first], others)
            for name, others in runs.items()
            if name != first and others
        }
    return dataclasses.replace(
        found,
        aggregates=aggregates,
        aggregated=aggregated,
        improvement=improvement,
        notes=_notes(found),
    )


def method_aggregates(
    suite: Suite, method: Method, tasks: Sequence[str]
) -> tuple[dict[str, list[float]], Aggregates | None]:
    """(normalised runs by task, aggregates) of a publication over "suite/task"; None if a task is missing.

    Mean and median are those of the printed table where there is one; the rest needs its runs.
    """
    names = {task: found[1] for task in tasks if (found := lookup(task))}
    scores = {task: method.mean(name) for task, name in names.items()}
    if any(score is None for score in scores.values()):
        return {}, None

    def scaled(task: str, score: float) -> float:
        return normalise(score, suite.random[names[task]], suite.human[names[task]])

    table = aggregate_means(
        {task: scaled(task, score) for task, score in scores.items() if score is not None}
    )
    if not all(name in method.runs for name in names.values()):
        return {}, table
    runs = {task: [scaled(task, x) for x in method.runs[name]] for task, name in names.items()}
    pooled = aggregate(runs)
    if method.per_task:
        pooled = dataclasses.replace(
            pooled, mean=table.mean, median=table.median, superhuman=table.superhuman
        )
    return runs, pooled


def _spelling(name: str, tasks: Sequence[str]) -> str:
    """The method's own spelling of its name."""
    for suite in {found[0].name: found[0] for task in tasks if (found := lookup(task))}.values():
        with contextlib.suppress(OneiroError):
            return suite.method(name).name
    raise AssertionError(name)  # require_methods has found it


def _notes(found: Comparison) -> list[str]:
    """Settings of the runs, how each published figure was measured, and where budgets differ."""
    notes = []
    for suite in {pair[0].name: pair[0] for task in found.tasks if (pair := lookup(task))}.values():
        members = [
            run
            for (_, task), runs in found.runs.items()
            for run in runs
            if (pair := lookup(task)) and pair[0] is suite
        ]
        if found.methods:
            played = [run for run in members if run.evaluation or not found.is_evaluation]
            if not played:
                continue
            shown = played[0].evaluation_settings if found.is_evaluation else played[0].settings
            notes.append(f"These runs on {suite.name}: {_facts(shown)}.")
            notes += _budget_notes(found, suite, members)
        for name in found.methods:
            if name in suite.methods:
                method = suite.methods[name]
                known = f"{method.readout}; {_facts(method.protocol)}".rstrip("; ")
                text = f"{name} on {suite.name}: {known}. Source: {method.status}"
                notes.append(f"{text}. {method.note}" if method.note else f"{text}.")
    return notes


def _budget_notes(found: Comparison, suite: Suite, members: Sequence[RunResult]) -> list[str]:
    """A figure of 400,000 frames says little beside a run that has seen another number of them."""
    if not found.is_evaluation:
        ends = sorted({found.ends[run.task] for run in members} - {float(suite.frames)})
        return [f"Read out at {end:,.0f} frames; published are {suite.frames:,}." for end in ends]
    low, high = NEARLY * suite.frames, 1.15 * suite.frames  # DreamerV3's own configuration asks for 110 %
    return [
        f"{run.path} has seen {run.frames:,.0f} frames; published figures are those of {suite.frames:,}."
        for run in members
        if run.frames and not low <= run.frames <= high
    ]


def _facts(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())
