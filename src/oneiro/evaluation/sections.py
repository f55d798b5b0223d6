"""The sections of a report, each a function from `ReportData` to HTML. All text of a run is escaped here."""

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from oneiro.evaluation.animation import still
from oneiro.evaluation.learning_section import learning_curve
from oneiro.evaluation.plots import Curve, line_plot, share_bar, strip_plot
from oneiro.evaluation.report_data import Clip, Line, ReportData
from oneiro.evaluation.stats import Summary, summarize

CURVES = (
    # title, [(metric, name, tone)], x, y, logarithmic
    (
        "V learns to see",
        [("vision/reconstruction", "", "real")],
        "updates",
        "squared error per picture",
        True,
    ),
    ("V's information", [("vision/kl", "", "real")], "updates", "KL, nats per picture", False),
    ("M learns to predict", [("memory/nll", "", "dream")], "updates", "nats per latent number", False),
    ("M learns how it ends", [("memory/terminated", "", "dream")], "updates", "cross-entropy", True),
    (
        "C learns to act, {practice}",
        [
            ("evolve/best", "best of a generation", "dream"),
            ("evolve/mean", "its mean", "ink"),
            ("evolve/test", "test of the distribution's mean", "real"),
        ],
        "generations",
        "score {practice}",
        False,
    ),
)
ONLINE = (
    # The same of a run that learns while it plays; a world logs those of its parts.
    (
        "The world learns to see",
        [("world/image", "", "real")],
        "agent steps",
        "squared error per picture",
        True,
    ),
    ("It learns to read numbers", [("world/vector", "", "real")], "agent steps", "squared error", True),
    ("It learns what pays", [("world/reward", "", "dream")], "agent steps", "nats per reward", True),
    ("What it did not expect", [("world/kl", "", "dream")], "agent steps", "KL, nats a step", False),
    ("What it hopes for", [("dream/return", "", "dream")], "agent steps", "return of imagined rows", False),
    (
        "It makes up its mind",
        [("actor/entropy", "", "ink")],
        "agent steps",
        "entropy of the policy, nats",
        False,
    ),
)
TEMPERATURE = (
    "Temperature sets how much chance the dream contains: near 0 the likeliest thing always happens and the dream "
    "is tame, above 1 it is wilder than the game it was learned from. A high score in a tame dream promises "
    "little about the real game, because the agent may live off what the dream leaves out; the paper's best "
    "agent was trained in a dream a little wilder than the game."
)


def headline(data: ReportData) -> str:
    """The result in one sentence of large type, if there is a real score."""
    real, chance = _last(data, "real"), _first(data, "chance")
    if real is None:
        return missing("The agent has not played the real game yet.", "oneiro evaluate RUN")
    mean = summarize(real.scores)
    text = f'<p class="big"><b>{mean.show(mean.mean)}</b><span>{escape(data.unit)} in the real game'
    if mean.n > 1:
        text += f", mean of {mean.n} episodes (95 % interval {mean.show(mean.low)} to {mean.show(mean.high)})"
    if chance is not None and (base := summarize(chance.scores).mean) > 0:
        text += f"; <em>{mean.mean / base:.1f} times</em> {escape(_lower(chance.name))}"
    return text + ".</span></p>"


def results(data: ReportData) -> str:
    """The table, and every episode as a dot."""
    measured = [line for line in data.lines if len(line.scores)]
    if not measured:
        return missing("No scores were recorded.", "oneiro evaluate RUN")
    body = "".join(_table_row(line) for line in data.lines)
    head = "<tr><th>Policy</th><th>Mean ± std</th><th>95 % interval</th><th>n</th></tr>"
    plot = strip_plot([(x.name, x.tone, x.scores) for x in measured], unit=data.unit, marks=data.marks)
    return (
        f'<div class="scroll"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>{plot}'
        '<p class="note">Every dot is one episode; the upright line is the mean and the bar its 95 % interval '
        "(Student's t). Std is that of single episodes.</p>"
    )


def films(data: ReportData) -> str:
    """All clips, and how fast the open-loop dream drifts from the truth."""
    body = "".join(clip(each) for each in data.clips) or missing("No films were made.", "oneiro dream RUN")
    if data.open_loop is None:
        return body
    steps = list(range(len(data.open_loop["psnr"])))
    plot = line_plot(
        "How long the dream stays true",
        [
            Curve(name="dream", x=steps, y=data.open_loop["psnr"], tone="dream"),
            # Its first value is a picture compared with itself.
            Curve(
                name="last real frame, held", x=steps[1:], y=data.open_loop["held_psnr"][1:], tone="chance"
            ),
        ],
        x_name="steps since the last real frame",
        y_name="PSNR in dB, higher is closer",
    )
    return body + f'<div class="one">{plot}</div>'


def temperature(data: ReportData) -> str:
    """What temperature does, measured on the run's own controller; nothing for a run that learns while it plays."""
    if data.learning is not None and not data.temperature:
        return ""
    text = f"<h2>What temperature does</h2><p>{escape(TEMPERATURE)}</p>"
    sweep = {tau: summarize(scores) for tau, scores in sorted(data.temperature.items()) if len(scores)}
    if sweep:
        text += f'<div class="one">{_sweep(data, sweep)}</div>'
    else:
        text += missing("No dreams at other temperatures were measured.", "oneiro report RUN")
    if data.temperature_clip is not None:
        text += clip(data.temperature_clip)
    return text


def curves(data: ReportData) -> str:
    """Every known metric that was logged."""
    plots, absent = [], []
    online = data.learning is not None
    for title, metrics, x_name, y_name, is_log in ONLINE if online else CURVES:
        lines = []
        for metric, name, tone in metrics:
            x, y = series(data.metrics, metric)
            if x:
                lines.append(Curve(name=name, x=x, y=y, tone=tone))
        if lines:
            where = {"practice": data.practice}
            title, y_name = title.format(**where), y_name.format(**where)
            plot = line_plot(title, lines, x_name=x_name, y_name=y_name, is_log=is_log)
            plots.append(f'<div class="wide">{plot}</div>' if len(metrics) > 1 else plot)
        elif not online:
            absent += [metric for metric, _, _ in metrics]
    body = learning_curve(data.learning, data.unit) if data.learning is not None else ""
    body += f'<div class="plots">{"".join(plots)}</div>' if plots else ""
    if absent:
        body += missing(f"Not in this run's metrics: {', '.join(absent)}.", "oneiro train")
    return body


def making(data: ReportData) -> str:
    """Time, parameters, and the facts that let others repeat it."""
    time = share_bar(data.seconds) if data.seconds else missing("Times were not recorded.", "oneiro train")
    if data.parameters:
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{count:,}</td></tr>" for name, count in data.parameters.items()
        )
        counts = f'<table class="small"><tbody>{rows}</tbody></table>'
    else:
        counts = missing("Parameter counts were not recorded.", "oneiro show RECIPE")
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in data.facts.items())
    facts = (
        f"<dl>{facts}</dl>" if facts else missing("Command and hardware were not recorded.", "oneiro train")
    )
    return f"<h3>Time</h3>{time}<h3>Parameters</h3>{counts}<h3>To repeat it</h3>{facts}"


def recipe(data: ReportData) -> str:
    """The recipe as JSON, folded away."""
    if not data.recipe:
        return missing("The recipe is not at hand.", "oneiro show RECIPE")
    text = json.dumps(data.recipe, indent=2, ensure_ascii=False)
    return f"<details><summary>The whole recipe</summary><pre>{escape(text)}</pre></details>"


def clip(each: Clip) -> str:
    """A film with its caption; readers who asked for less motion get one frame."""
    text = f"<b>{escape(each.title)}</b> {escape(each.caption)}"
    if each.film is None:
        return missing(f"Film “{each.title}” was not made.", "oneiro report RUN")
    return f'<figure class="film">{_picture(each.film, each.title)}<figcaption>{text}</figcaption></figure>'


def series(metrics: Sequence[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """(steps, values) of one metric; steps that start again in a later stage are laid end to end."""
    x: list[float] = []
    y: list[float] = []
    offset = 0.0
    for record in metrics:
        value = record.get(name)
        if isinstance(value, int | float) and value == value and abs(value) != float("inf"):
            step = float(record.get("step", len(x)))
            if x and step + offset < x[-1]:
                offset = x[-1]
            x.append(step + offset)
            y.append(float(value))
    return x, y


def missing(what: str, command: str) -> str:
    """Says in its place what is not there, and what would make it."""
    return f'<p class="missing">{escape(what)} Made by <code>{escape(command)}</code>.</p>'


def _table_row(line: Line) -> str:
    note = f"<small>{escape(line.note)}</small>" if line.note else ""
    name = f'<td><span class="key {line.tone}">{escape(line.name)}</span>{note}</td>'
    if not len(line.scores):
        return f'<tr>{name}<td colspan="3" class="none">not measured</td></tr>'
    s = summarize(line.scores)
    if s.n == 1:
        return f"<tr>{name}<td><b>{s.show(s.mean)}</b></td><td>–</td><td>1</td></tr>"
    return (
        f"<tr>{name}<td><b>{s.show(s.mean)}</b> ± {s.show(s.std)}</td>"
        f"<td>{s.show(s.low)} to {s.show(s.high)}</td><td>{s.n}</td></tr>"
    )


def _sweep(data: ReportData, sweep: dict[float, Summary]) -> str:
    marks = {}
    if (real := _last(data, "real")) is not None:
        marks["its mean in the real game"] = summarize(real.scores).mean
    trained = data.temperature_trained
    title = "One agent, other dreams" + ("" if trained is None else f" (it was trained at {trained:g})")
    means = list(sweep.values())
    curve = Curve(
        name="score in the dream",
        x=list(sweep),
        y=[s.mean for s in means],
        tone="dream",
        low=[s.low if s.n > 1 else s.mean for s in means],
        high=[s.high if s.n > 1 else s.mean for s in means],
    )
    return line_plot(
        title,
        [curve],
        x_name="temperature",
        y_name=data.unit,
        from_zero=True,
        marks=marks,
        x_ticks=list(sweep),
    )


def _picture(film: Path, title: str) -> str:
    calm, (wide, high) = still(film)
    return (
        f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{_data_uri(calm, "webp")}">'
        f'<img src="{_data_uri(film.read_bytes(), film.suffix[1:])}" width="{wide}" height="{high}" '
        f'alt="{escape(title)}"></picture>'
    )


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")


def _first(data: ReportData, tone: str) -> Line | None:
    return next((line for line in data.lines if line.tone == tone and len(line.scores)), None)


def _last(data: ReportData, tone: str) -> Line | None:
    return next((line for line in reversed(data.lines) if line.tone == tone and len(line.scores)), None)


def _lower(name: str) -> str:
    return "the " + name[:1].lower() + name[1:]
