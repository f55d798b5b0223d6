"""Plots for comparisons and results, drawn with matplotlib (extra `plots`), as SVG text.

    learning_curves   score by frame, one band a system
    intervals         aggregates with their intervals
    distributions     share of runs above a normalised score

The report of a single run needs none of this: its plots are those of `plots.py`.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from oneiro.errors import MissingExtra
from oneiro.evaluation.aggregate import Aggregates, Runs, distribution
from oneiro.evaluation.learning_curve import Band

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#4a55c7", "#c2611a", "#2a8a5f", "#a03a6b", "#6b6f7a", "#8a6d1d", "#1f7f9c", "#7a4fb5")
STYLE: Any = {
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "oneiro",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#63666f",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e1d9",
    "legend.frameon": False,
    "legend.fontsize": 9,
}
STATISTICS = {"mean": "mean", "median": "median", "iqm": "IQM", "optimality_gap": "optimality gap"}


def learning_curves(
    panels: Mapping[str, Mapping[str, Band]],
    *,
    marks: Mapping[str, Mapping[str, float]] | None = None,
    y_name: str = "score of training episodes",
    x_name: str = "frames of the game",
) -> str:
    """One panel a task: {task: {system: band}}; `marks`: {task: {name: score}} as dashed lines (random, published)."""
    systems = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(systems)}

    def draw(axes: Sequence["Axes"]) -> None:
        for ax, (task, bands) in zip(axes, panels.items(), strict=False):
            for name, each in bands.items():
                runs = f"{each.runs} run" + "s" * (each.runs > 1)
                ax.plot(each.frame, each.mean, color=colour[name], label=f"{name}, {runs}")
                ax.fill_between(each.frame, each.low, each.high, color=colour[name], alpha=0.2, linewidth=0)
            for i, (name, score) in enumerate((marks or {}).get(task, {}).items()):
                ax.axhline(
                    score, color="#858993", linestyle=("--", ":", "-.")[i % 3], linewidth=1.2, label=name
                )
            ax.set(title=task, xlabel=x_name, ylabel=y_name)
            ax.xaxis.set_major_formatter(_short)
            ax.legend()

    return _svg(draw, len(panels), across=2, size=(5.4, 3.4))


def intervals(aggregates: Mapping[str, Aggregates]) -> str:
    """{system: aggregates} -> one panel a statistic, a bar from end to end of each interval."""
    names = list(aggregates)

    def draw(axes: Sequence["Axes"]) -> None:
        for k, (ax, (field, title)) in enumerate(zip(axes, STATISTICS.items(), strict=True)):
            for row, name in enumerate(names):
                estimate = getattr(aggregates[name], field)
                if estimate is None:
                    continue
                if not np.isnan(estimate.low):
                    ax.barh(
                        row,
                        estimate.high - estimate.low,
                        left=estimate.low,
                        height=0.5,
                        alpha=0.5,
                        color=COLOURS[0],
                    )
                ax.plot([estimate.value] * 2, [row - 0.32, row + 0.32], color="#1d1f24", linewidth=2)
            ax.use_sticky_edges = False
            ax.margins(x=0.08)
            ax.set(title=title, ylim=(len(names) - 0.5, -0.5), yticks=range(len(names)))
            ax.set_yticklabels(names if k == 0 else [])

    return _svg(draw, len(STATISTICS), across=4, size=(3.0, 0.9 + 0.42 * len(names)))


def distributions(systems: Mapping[str, Runs], *, until: float = 4.0) -> str:
    """{system: normalised runs by task} -> share of runs above each normalised score, with its interval."""
    taus = np.linspace(0, until, 81)

    def draw(axes: Sequence["Axes"]) -> None:
        for colour, (name, runs) in zip(COLOURS * 3, systems.items(), strict=False):
            shares = distribution(runs, taus.tolist(), draws=1000)
            axes[0].plot(taus, [s.value for s in shares], color=colour, label=name)
            if not np.isnan(shares[0].low):
                axes[0].fill_between(
                    taus,
                    [s.low for s in shares],
                    [s.high for s in shares],
                    color=colour,
                    alpha=0.2,
                    linewidth=0,
                )
        axes[0].set(xlabel="human-normalised score", ylabel="share of runs above it", ylim=(0, 1.02))
        axes[0].legend()

    return _svg(draw, 1, across=1, size=(7.0, 3.8))


def _svg(
    draw: Callable[[Sequence["Axes"]], None], count: int, *, across: int, size: tuple[float, float]
) -> str:
    """`draw` fills `count` panels, at most `across` beside each other, each of `size` (inches)."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "plots") from None
    columns = min(across, count)
    rows = -(-count // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
        axes = list(np.ravel(figure.subplots(rows, columns)))
        draw(axes[:count])
        for left in axes[count:]:
            left.set_visible(False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _short(value: float, _: Any) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
