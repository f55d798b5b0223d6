"""Learning curves of several seeds: mean over the runs with its interval, by frame of the game."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oneiro.evaluation.stats import summarize
from oneiro.evaluation.training_episodes import BINS, TrainingEpisodes


@dataclass(frozen=True, kw_only=True)
class Band:
    """A curve with an interval, all lists of the same length."""

    frame: list[float]
    """Where a bin ends."""
    mean: list[float]
    low: list[float]
    high: list[float]
    """Ends of the 95 % interval over runs (Student's t); both equal the mean if there is one run."""
    runs: int

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "runs": self.runs,
            **{name: [round(v, 3) for v in getattr(self, name)] for name in ("frame", "mean", "low", "high")},
        }


def band(runs: Sequence[TrainingEpisodes], end: float, bins: int = BINS) -> Band:
    """Training-episode returns of runs of one system on one task, in `bins` of equal width up to frame `end`.

    A bin in which a run ended no episode has the run's value before it. The band covers the bins for which every
    run has a value and which every run has reached; it is empty if there are none.
    """
    seen = [float(r.frame.max()) if len(r) else 0.0 for r in runs]
    edge = end / bins * np.arange(1, bins + 1)
    values = np.stack([r.bins(end, width=end / bins, fill=True) for r in runs], -1)  # [bins, runs]
    # The last episode of a run seldom ends on its last frame: the bin it ends in counts as reached.
    shown = np.flatnonzero(~np.isnan(values).any(-1) & (edge - end / bins < min(seen)))
    found = [summarize(values[k]) for k in shown]
    single = len(runs) == 1
    return Band(
        frame=edge[shown].tolist(),
        mean=[s.mean for s in found],
        low=[s.mean if single else s.low for s in found],
        high=[s.mean if single else s.high for s in found],
        runs=len(runs),
    )
