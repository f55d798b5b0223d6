"""The report of a run that learns while it plays: returns of its training episodes by frame."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from oneiro.evaluation.episodes import Scores
from oneiro.evaluation.plots import Curve, line_plot, short
from oneiro.evaluation.published import lookup
from oneiro.evaluation.settings import frames_per_step, task_of
from oneiro.evaluation.stats import show, summarize
from oneiro.evaluation.training_episodes import LAST, TrainingEpisodes, read_training_episodes


@dataclass(frozen=True, kw_only=True)
class Learning:
    """What the section shows."""

    episodes: TrainingEpisodes
    marks: Mapping[str, float] = field(default_factory=dict)
    """Scores to draw beside the curve: a random policy, what was published."""
    note: str = ""
    """How the published figures were measured."""


def learning_of(
    recipe: str, env: Any, metrics: Sequence[dict[str, Any]], scores: Mapping[str, Scores]
) -> Learning | None:
    """From a run's log; None if it logged no training episodes (a run that collects first and learns then)."""
    episodes = read_training_episodes(metrics, frames_per_step(env))
    if not len(episodes):
        return None
    marks: dict[str, float] = {}
    notes: list[str] = []
    found = lookup(task_of(env))
    if "random" in scores:
        marks["random policy"] = scores["random"].summary.mean
    elif found and found[1] in found[0].random:
        marks["random policy, published"] = found[0].random[found[1]]
    if found:
        suite, name = found
        system = recipe.partition("-")[0].lower()
        for method in suite.methods.values():
            score = method.mean(name)
            if method.name.lower().startswith(system) and score is not None:
                marks[f"{method.name}, published, {short(suite.frames)} frames"] = score
                notes.append(f"{method.name}: {method.readout}.")
    return Learning(episodes=episodes, marks=marks, note=" ".join(notes))


def learning_curve(data: Learning, unit: str) -> str:
    """The curve, and the last episodes in words."""
    episodes = data.episodes
    end = float(episodes.frame.max())
    means = episodes.bins(end)
    known = np.flatnonzero(~np.isnan(means))
    frames = end / len(means) * (known + 1)
    marks = {f"{name}: {show(score)}": score for name, score in data.marks.items()}
    plot = line_plot(
        "Score as it learned to play",
        [Curve(name="training episodes", x=frames.tolist(), y=means[known].tolist(), tone="real")],
        x_name="frames of the game",
        y_name=unit,
        marks=marks,
    )
    last = episodes.between(end * (1 - LAST), end)
    text = (
        f"{len(episodes):,} training episodes, mean of each {short(round(end / len(means), 3))} frames. They are "
        "played by the policy that learns, with sampled actions; the table above is a separate evaluation. Last "
        f"{LAST:.1%} of the frames: {summarize(last)}. {data.note}"
    )
    return f'<div class="one">{plot}</div><p class="note">{escape(text.strip())}</p>'
