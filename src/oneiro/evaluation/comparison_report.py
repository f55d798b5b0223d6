"""`write_comparison`: a comparison as one HTML file with plots (extra `plots`). All text of runs is escaped here."""

import os
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import oneiro
from oneiro.errors import OneiroError
from oneiro.evaluation.aggregate import Estimate, Runs
from oneiro.evaluation.comparison import Comparison, method_aggregates
from oneiro.evaluation.figures import distributions, intervals, learning_curves
from oneiro.evaluation.learning_curve import Band, band
from oneiro.evaluation.published import suites
from oneiro.evaluation.stats import Summary, show


def write_comparison(path: Path, found: Comparison) -> Path:
    """Write the page, all or nothing, and return its path."""
    if path.suffix not in (".html", ".htm"):
        raise OneiroError(f"a report is a web page: name a file that ends in .html, not {path}")
    template = resources.files("oneiro.evaluation").joinpath("comparison.html").read_text(encoding="utf-8")
    page = Template(template).substitute(
        title=escape(_title(found)),
        readout=escape(found.readout),
        version=escape(oneiro.__version__),
        scores=scores(found),
        curves=curves(found),
        aggregates=aggregates(found),
        notes=notes(found),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)
    return path


def scores(found: Comparison) -> str:
    """A row a task: random, human, systems with intervals, published figures."""
    head = ["task", "random", "human", *found.labels, *(f"{name} (published)" for name in found.methods)]
    rows = []
    for task in found.tasks:
        published = found.published(task)
        cells = [found.cells.get((label, task)) for label in found.labels]
        rows.append(
            [
                escape(task),
                *(_number(constants.get(task)) for constants in (found.random, found.human)),
                *(_summary(cell.summary) if cell else "" for cell in cells),
                *(_number(published.get(name)) for name in found.methods),
            ]
        )
    return _table(head, rows)


def curves(found: Comparison) -> str:
    """Training episodes by frame, a panel a task, with random and published scores."""
    panels: dict[str, dict[str, Band]] = {}
    for (label, task), runs in found.runs.items():
        kept = [run.episodes for run in runs if len(run.episodes)]
        if kept and (each := band(kept, found.ends[task])).frame:
            panels.setdefault(task, {})[label] = each
    if not panels:
        return "<p>These runs logged no training episodes.</p>"
    marks = {}
    for task in panels:
        random = {"random": found.random[task]} if task in found.random else {}
        marks[task] = random | {f"{name}, published": x for name, x in found.published(task).items()}
    text = "Returns of training episodes, mean over runs; a bin without an episode has the value before it."
    return f"<figure>{_inline(learning_curves(panels, marks=marks))}</figure><p>{text}</p>"


def aggregates(found: Comparison) -> str:
    """Table, intervals and score distributions of every suite with human scores."""
    parts = []
    for suite, every in found.aggregates.items():
        tasks = found.aggregated[suite]
        text = (
            f"{suite}, human-normalised, over {len(tasks)} of {len(suites()[suite].tasks)} tasks: "
            f"{', '.join(task.rpartition('/')[2] for task in tasks)}. Intervals: stratified bootstrap over runs. "
            "Lower is better for the optimality gap."
        )
        better = found.improvement[suite]
        head = ["system", "mean", "median", "IQM", "optimality gap", "superhuman", "runs"]
        head += [f"P({found.labels[0]} better)"] if better else []
        rows = []
        for name, a in every.items():
            estimates = [_estimate(e) for e in (a.mean, a.median, a.iqm, a.optimality_gap)]
            row = [escape(name), *estimates, str(a.superhuman), str(a.runs or "n/a")]
            rows.append([*row, *([_estimate(better.get(name))] if better else [])])
        parts.append(f"<p>{escape(text)}</p>{_table(head, rows)}")
        parts.append(f"<figure>{_inline(intervals(every))}</figure>")
        parts.append(f"<figure>{_inline(distributions(_runs(found, suite)))}</figure>")
    return (
        "".join(parts) or "<p>Aggregates need two or more tasks with a human score that every system has.</p>"
    )


def notes(found: Comparison) -> str:
    """What was left out, and how published figures were measured."""
    lines = [*(f"Left out: {line}" for line in found.left_out), *found.notes]
    lines += [
        f"{label} on {task}: {', '.join(str(run.path) for run in runs)}"
        for (label, task), runs in found.runs.items()
    ]
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _runs(found: Comparison, suite: str) -> dict[str, Runs]:
    tasks = found.aggregated[suite]
    systems: dict[str, Runs] = {
        label: {task: found.cells[label, task].normalised for task in tasks} for label in found.labels
    }
    for name in found.methods:
        if method := suites()[suite].methods.get(name):
            runs, _ = method_aggregates(suites()[suite], method, tasks)
            systems |= {name: runs} if runs else {}
    return systems


def _title(found: Comparison) -> str:
    names = [*found.labels, *found.methods]
    where = found.tasks[0] if len(found.tasks) == 1 else f"{len(found.tasks)} tasks"
    return f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''} on {where}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Heads are escaped here, cells are HTML."""

    def line(cells: Sequence[str], tag: str) -> str:
        first = f'<{tag} class="left">{cells[0]}</{tag}>'
        return f"<tr>{first}{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells[1:])}</tr>"

    body = "".join(line(row, "td") for row in rows)
    top = line([escape(name) for name in head], "th")
    return f'<div class="scroll"><table><thead>{top}</thead><tbody>{body}</tbody></table></div>'


def _summary(s: Summary) -> str:
    runs = "1 run" if s.n == 1 else f"{s.show(s.low)} to {s.show(s.high)}, {s.n} runs"
    return f"{s.show(s.mean)}<small>{runs}</small>"


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "n/a"
    value, _, interval = str(estimate).partition(" (")
    return value + (f"<small>{interval.rstrip(')')}</small>" if interval else "")


def _number(value: float | None) -> str:
    return "" if value is None else show(value)


def _inline(svg: str) -> str:
    """The drawing without the lines that only a file of its own needs."""
    return svg[svg.index("<svg") :]
