"""Small plots as HTML and inline SVG: they take the page's fonts and colours, light or dark, and any width.

Curves are drawn in a box of 100 x 100 that the browser stretches; numbers and names are ordinary text beside it,
so they stay legible on a phone. Nothing to install, and a plot costs a few kilobytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from oneiro.evaluation.stats import summarize

MAX_POINTS = 160
"""Longer curves are averaged in bins: a screen shows no more."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a plot."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    tone: str = "ink"
    """"dream", "real", "chance" or "ink": a colour of the page."""
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    """Ends of an interval at each point, drawn as whiskers."""


@dataclass(frozen=True)
class Axis:
    """Numbers -> 0..100."""

    low: float
    high: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """Position of `value`, not clipped."""
        low, high, value = (self._flat(v) for v in (self.low, self.high, value))
        return 100 * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round numbers inside."""
        if not self.is_log:
            return self._linear()
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1, 2, 5), (1,)):
            found = [d * 10.0**e for e in decades for d in digits if self.low <= d * 10.0**e <= self.high]
            if len(found) <= 6:
                break
        return found if len(found) > 1 else self._linear()

    def _linear(self) -> list[float]:
        return [v for v in linear_ticks(self.low, self.high) if self.low <= v <= self.high * (1 + 1e-9)]

    def _flat(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.is_log else value

    @classmethod
    def around(cls, values: Sequence[float], *, is_log: bool = False, from_zero: bool = False) -> "Axis":
        """An axis that holds all values with a little air."""
        low, high = min(values), max(values)
        if is_log:
            positive = [v for v in values if v > 0]
            return cls(min(positive) / 1.15, max(high, min(positive)) * 1.15, True) if positive else cls(0, 1)
        if from_zero:
            low = min(0.0, low)
        if high == low:
            high, low = high + 0.5, low - 0.5 * (not from_zero)
        air = 0.06 * (high - low)
        return cls(low if from_zero and low == 0 else low - air, high + air)


def line_plot(
    title: str,
    curves: Sequence[Curve],
    *,
    x_name: str,
    y_name: str,
    is_log: bool = False,
    from_zero: bool = False,
    marks: dict[str, float] | None = None,
    x_ticks: Sequence[float] = (),
) -> str:
    """A figure with one line per curve and dashed horizontal `marks` {name: height}."""
    marks = marks or {}
    thin = [_binned(curve) for curve in curves]
    x = Axis(min(min(c.x) for c in thin), max(max(c.x) for c in thin))
    if x.low == x.high:
        x = Axis(x.low - 0.5, x.high + 0.5)
    heights = [v for c in thin for values in (c.y, c.low, c.high) for v in values] + list(marks.values())
    y = Axis.around(heights, is_log=is_log, from_zero=from_zero)
    parts = [_grid(y), *(_mark_line(y.at(v)) for v in marks.values()), *(_curve(c, x, y) for c in thin)]
    names = [f'<span class="key {c.tone}">{escape(c.name)}</span>' for c in curves if c.name]
    names += [f'<span class="key mark">{escape(name)}</span>' for name in marks]
    return (
        f'<figure class="plot"><figcaption><b>{escape(title)}</b> <span class="unit">{escape(y_name)}</span>'
        f'<span class="keys">{"".join(names)}</span></figcaption>'
        f'<div class="frame"><div class="ys">{_labels(y, "bottom")}</div>'
        f"{_svg(''.join(parts), f'{title}: {y_name} over {x_name}')}"
        f'<div class="xs">{_labels(x, "left", x_ticks)}<div class="x-name">{escape(x_name)}</div></div></div></figure>'
    )


def strip_plot(
    rows: Sequence[tuple[str, str, Sequence[float]]], *, unit: str, marks: dict[str, float] | None = None
) -> str:
    """A dot per score for rows (name, tone, scores), with the mean and its interval, over one axis."""
    marks = marks or {}
    every = [v for _, _, scores in rows for v in scores] + list(marks.values())
    x = Axis.around(every, from_zero=True)
    body = []
    for name, tone, scores in rows:
        summary = summarize(scores)
        # Dots are spread over a band by a fixed low-discrepancy sequence, so that equal scores stay visible.
        dots = "".join(f"M{x.at(v):.2f} {24 + 52 * (i * 0.618034 % 1):.1f}h.01" for i, v in enumerate(scores))
        middle = f'<path class="mean" d="M{x.at(summary.mean):.2f} 8v84"/>'
        if summary.n > 1:
            low, high = (min(max(x.at(v), 0), 100) for v in (summary.low, summary.high))
            middle = f'<path class="interval" d="M{low:.2f} 50H{high:.2f}"/>' + middle
        lines = _grid(x, vertical=True) + "".join(_mark_line(x.at(v), vertical=True) for v in marks.values())
        svg = _svg(
            f'{lines}<g class="{tone}"><path class="dots" d="{dots}"/>{middle}</g>', f"{name}: {summary}"
        )
        body.append(f'<div class="strip"><span>{escape(name)}</span>{svg}</div>')
    tags = "".join(f'<i style="left:{x.at(value):.2f}%">{escape(name)}</i>' for name, value in marks.items())
    return (
        f'<div class="strips"><div class="tags">{tags}</div>{"".join(body)}'
        f'<div class="xs">{_labels(x, "left")}<div class="x-name">{escape(unit)}</div></div></div>'
    )


def share_bar(parts: dict[str, float]) -> str:
    """One bar divided in proportion to seconds {name: seconds}, with a legend."""
    total = sum(parts.values()) or 1.0
    pieces, legend = [], []
    for i, (name, seconds) in enumerate(parts.items()):
        pieces.append(f'<i class="part{i % 6}" style="flex-grow:{seconds / total:.4f}"></i>')
        legend.append(f'<li><i class="part{i % 6}"></i>{escape(name)} <b>{duration(seconds)}</b></li>')
    return f'<div class="share">{"".join(pieces)}</div><ul class="legend">{"".join(legend)}</ul>'


def duration(seconds: float) -> str:
    """For example "48 s", "3 min 20 s", "1 h 25 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(seconds / 60)
    return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")


def linear_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from below `low` to above `high`; no halves between whole numbers."""
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(
        s * size for s in ((1, 2, 2.5, 5, 10) if size != 1 else (1, 2, 5, 10)) if s * size >= raw * 0.999
    )
    first = math.floor(low / step)
    return [round(i * step, 12) for i in range(first, math.ceil(high / step) + 1)]


def short(value: float) -> str:
    """A tick's label: 12.5, 1,000, 20k, 3M."""
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else 1e6):g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _binned(curve: Curve) -> Curve:
    if len(curve.x) <= MAX_POINTS or curve.low:
        return curve
    x, y = (
        [float(part.mean()) for part in np.array_split(np.asarray(values, np.float64), MAX_POINTS)]
        for values in (curve.x, curve.y)
    )
    return Curve(name=curve.name, x=x, y=y, tone=curve.tone)


def _curve(curve: Curve, x: Axis, y: Axis) -> str:
    at = [(x.at(a), 100 - y.at(b)) for a, b in zip(curve.x, curve.y, strict=True)]
    line = "M" + "L".join(f"{a:.2f} {b:.2f}" for a, b in at)
    dots = "".join(f"M{a:.2f} {b:.2f}h.01" for a, b in at) if len(at) <= 12 else ""
    whiskers = "".join(
        f"M{a:.2f} {100 - y.at(low):.2f}V{100 - y.at(high):.2f}"
        for (a, _), low, high in zip(at, curve.low, curve.high, strict=False)
    )
    return (
        f'<g class="{curve.tone}"><path class="whisker" d="{whiskers}"/><path class="line" d="{line}"/>'
        f'<path class="point" d="{dots}"/></g>'
    )


def _grid(axis: Axis, *, vertical: bool = False) -> str:
    at = [axis.at(v) for v in axis.ticks()]
    return f'<path class="grid" d="{"".join(f"M{a:.2f} 0V100" if vertical else f"M0 {100 - a:.2f}H100" for a in at)}"/>'


def _mark_line(at: float, *, vertical: bool = False) -> str:
    return f'<path class="mark" d="{f"M{at:.2f} 0V100" if vertical else f"M0 {100 - at:.2f}H100"}"/>'


def _labels(axis: Axis, side: str, ticks: Sequence[float] = ()) -> str:
    """Numbers at their places; of given `ticks` those are left out that would run into the one before."""
    shown: list[float] = []
    for v in ticks or axis.ticks():
        if not ticks or not shown or axis.at(v) - axis.at(shown[-1]) > 7:
            shown.append(v)
    return "".join(f'<span style="{side}:{axis.at(v):.2f}%">{short(v)}</span>' for v in shown)


def _svg(body: str, label: str) -> str:
    return (
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f"{body}</svg>"
    )
