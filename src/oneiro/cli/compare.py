"""`oneiro compare`: seeds, tasks and systems side by side, against published scores."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from oneiro.cli.options import parse
from oneiro.errors import OneiroError
from oneiro.evaluation.aggregate import Aggregates, normalise
from oneiro.evaluation.comparison import Comparison, Readout, compare
from oneiro.evaluation.run_result import RunResult, read_result
from oneiro.evaluation.stats import Summary, show
from oneiro.recipes import find
from oneiro.training.recipe import restore
from oneiro.training.run_folder import RunFolder

FEW = 4
"""Tasks up to which every system has a line of its own; beyond, systems are columns."""
WIDTH = 120
"""Columns a table may take in any case: where output is no terminal, and where that is narrow."""
AGGREGATES = ("system", "mean", "median", "IQM", "optimality gap", "superhuman", "runs")
EXAMPLE = "oneiro compare runs/pacman-0 runs/pacman-1 runs/pacman-2 --against dreamerv3-2024 iris"


@dataclass(frozen=True)
class CompareRuns:
    """Seeds, tasks and systems side by side: scores with intervals, aggregates, published figures."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]  # run folders
    against: tuple[str, ...] = ()  # published methods, such as dreamerv3-2024 iris diamond
    readout: Readout = "auto"  # separate evaluation, or training episodes as DreamerV3's papers read them
    at: int | None = (
        None  # frames at which training episodes are read out; default: the suite's, or the budget
    )
    share: float = 0.025  # of these frames, whose episodes count
    mixed: bool = False  # show runs with different settings side by side, as different systems
    recipe: tuple[str, ...] = ()  # file.py:function of recipes of your own that made some of the runs
    report: Path | None = None  # also write a page with plots (extra `plots`)
    json: bool = False  # machine-readable output


def compare_command(arguments: Sequence[str]) -> None:
    """See `oneiro compare --help`."""
    own = parse(CompareRuns, arguments, "compare", EXAMPLE)
    if not own.runs:
        raise OneiroError(f"which runs? For example: {EXAMPLE}")
    if not 0 < own.share <= 1 or (own.at is not None and own.at < 1):
        raise OneiroError("--share is a part of 1, and --at a positive number of frames")
    found = compare(
        [_read(path, own.recipe) for path in own.runs],
        readout=own.readout,
        against=own.against,
        at=own.at,
        share=own.share,
        mixed=own.mixed,
    )
    page = None
    if own.report is not None:
        from oneiro.evaluation.comparison_report import write_comparison

        page = write_comparison(own.report, found)
    if own.json:
        print(json.dumps(to_json(found)))
        return
    print_comparison(found)
    if page is not None:
        print(f"report: {page}")


def to_json(found: Comparison) -> dict[str, Any]:
    """The whole comparison as plain numbers."""
    return {
        "readout": found.readout,
        "tasks": {task: _task_json(found, task) for task in found.tasks},
        "aggregates": {
            suite: {
                "tasks": found.aggregated[suite],
                **{
                    name: {
                        **values.to_json(),
                        "probability_of_improvement_of_the_first": better.to_json()
                        if (better := found.improvement[suite].get(name))
                        else None,
                    }
                    for name, values in every.items()
                },
            }
            for suite, every in found.aggregates.items()
        },
        "left_out": found.left_out,
        "notes": found.notes,
    }


def print_comparison(found: Comparison) -> None:
    """Tables of scores and aggregates; what was left out, and how published figures were measured."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, WIDTH))

    def table(
        title: str, names: Sequence[str], rows: Sequence[Sequence[str]], left: int, whole: bool
    ) -> None:
        shown = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1))
        for i, name in enumerate(names):
            shown.add_column(
                name, justify="left" if i < left else "right", overflow="fold", no_wrap=whole and i >= left
            )
        for row in rows:
            shown.add_row(*(cell.replace("[", r"\[") for cell in row))
        console.print(shown)

    few = len(found.tasks) <= FEW
    table(
        f"Scores: {found.readout}",
        *(_by_system(found) if few else _by_task(found)),
        left=1 + few,
        whole=False,
    )
    for suite, every in found.aggregates.items():
        table(_aggregate_title(found, suite), AGGREGATES, _aggregates(every), left=1, whole=True)
        for name, better in found.improvement[suite].items():
            console.print(f"P(a run of {found.labels[0]} beats one of {name}) = {better}", markup=False)
    for line in [*(f"left out: {line}" for line in found.left_out), *found.notes]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _by_system(found: Comparison) -> tuple[list[str], list[list[str]]]:
    rows = []
    for task in found.tasks:
        published = found.published(task)
        lines = [
            ("random", _number(found.random.get(task)), ""),
            ("human", _number(found.human.get(task)), ""),
        ]
        for label in found.labels:
            if cell := found.cells.get((label, task)):
                lines.append((label, _interval(cell.summary), str(cell.summary.n)))
        lines += [(name, _number(score), "published") for name, score in published.items()]
        shown = [line for line in lines if line[1]]
        scaled = [_scaled(found, task, name, published) for name, *_ in shown]
        rows += [
            [task if i == 0 else "", name, score, hns, runs]
            for i, ((name, score, runs), hns) in enumerate(zip(shown, scaled, strict=True))
        ]
    return ["task", "system", "score (95 %)", "normalised", "runs"], rows


def _by_task(found: Comparison) -> tuple[list[str], list[list[str]]]:
    names = ["task", "random", "human", *(f"{label} (95 %)" for label in found.labels), *found.methods]
    rows = []
    for task in found.tasks:
        cells = [found.cells.get((label, task)) for label in found.labels]
        published = found.published(task)
        rows.append(
            [
                task.rpartition("/")[2],
                *(_number(constants.get(task)) for constants in (found.random, found.human)),
                *(_interval(cell.summary) if cell else "" for cell in cells),
                *(_number(published.get(name)) for name in found.methods),
            ]
        )
    return names, rows


def _scaled(found: Comparison, task: str, name: str, published: dict[str, float]) -> str:
    if cell := found.cells.get((name, task)):
        return f"{sum(cell.normalised) / len(cell.normalised):.3f}" if cell.normalised else ""
    human, random, score = found.human.get(task), found.random.get(task), published.get(name)
    return (
        "" if human is None or random is None or score is None else f"{normalise(score, random, human):.3f}"
    )


def _aggregate_title(found: Comparison, suite: str) -> str:
    from oneiro.evaluation.published import suites

    tasks, every = found.aggregated[suite], suites()[suite].tasks
    return (
        f"{suite}, human-normalised, {len(tasks)} of {len(every)} tasks (95 % stratified bootstrap over runs)"
    )


def _aggregates(every: Mapping[str, Aggregates]) -> list[list[str]]:
    """A row for each system and published method; intervals below the values."""
    rows = []
    for name, a in every.items():
        estimates = [
            str(e).replace(" (", "\n(") if e else "n/a" for e in (a.mean, a.median, a.iqm, a.optimality_gap)
        ]
        rows.append([name, *estimates, str(a.superhuman), str(a.runs or "n/a")])
    return rows


def _task_json(found: Comparison, task: str) -> dict[str, Any]:
    human, random = found.human.get(task), found.random.get(task)
    runs = {}
    for label in found.labels:
        if cell := found.cells.get((label, task)):
            runs[label] = {
                "seeds": cell.seeds,
                "scores": cell.scores,
                "normalised": cell.normalised,
                "summary": cell.summary.to_json(),
            }
    published = {}
    for name, score in found.published(task).items():
        scaled = None if human is None or random is None else normalise(score, random, human)
        published[name] = {"score": score, "normalised": scaled}
    return {"random": random, "human": human, "runs": runs, "published": published}


def _number(value: float | None) -> str:
    return "" if value is None else show(value)


def _interval(summary: Summary) -> str:
    digits = summary.show
    interval = "" if summary.n == 1 else f" ({digits(summary.low)} to {digits(summary.high)})"
    return digits(summary.mean) + interval


def _read(path: Path, trusted: Sequence[str]) -> RunResult:
    """A run folder's files; code that a folder names is never run unless the user names it too."""
    folder = RunFolder.read(path)
    try:
        name, size, values = (folder.recipe[key] for key in ("recipe", "size", "values"))
    except (KeyError, TypeError):
        raise OneiroError(f"{path} holds no recipe of `oneiro train`; name a folder that it made") from None
    if ":" in name and name not in trusted:
        raise OneiroError(
            f"{path} was made by a recipe of your own ({name}). Reading never runs code that a file names: "
            f"repeat the command with --recipe {name} if you trust it"
        )
    return read_result(path, restore(find(name).build(size), values))
