"""Many tasks, several runs each, as one number: mean, median, IQM, optimality gap, with bootstrap intervals.

Definitions of Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice" (rliable), on
normalised scores X[task, run]:

    mean             mean over tasks of the mean over runs
    median           median over tasks of the mean over runs
    IQM              mean of the middle half of all runs of all tasks together
    optimality gap   1 - mean over tasks and runs of min(X, 1); lower is better
    superhuman       tasks whose mean over runs is 1 or more

Intervals are 95 % percentile bootstraps, stratified by task: runs are drawn anew within each task, tasks never. The
bootstrap is the few lines of `_resample`. rliable itself was tried: its latest release pulls in twelve packages
(statsmodels, pandas, seaborn, ...) and does not import beside pandas 3. scipy.stats.bootstrap calls the statistic
with one array a task and is no dependency otherwise. The tests compare with values that rliable gave.

IQM and optimality gap are statistics of runs. With nothing but a mean of each task they cannot be computed, and no
value of the means stands in for them: `Aggregates.absent` says why. Few runs make these intervals too narrow (see
`stats`); that is the field's convention, and one run of a task has no interval at all.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from oneiro.evaluation.stats import middle_mean

DRAWS = 10_000
"""Repetitions of a bootstrap; rliable's examples use 50,000, which moves the ends by less than 0.002."""

Runs = Mapping[str, Sequence[float]]
"""{task: one score a run}."""


@dataclass(frozen=True)
class Estimate:
    """A statistic and the ends of its 95 % interval (nan: no interval)."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        """For example "0.501 (0.442 to 0.565)"."""
        if math.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def to_json(self) -> dict[str, float | None]:
        """Plain numbers; None for nan."""
        return {k: None if math.isnan(v) else v for k, v in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Aggregates:
    """Normalised scores of several tasks as single numbers."""

    mean: Estimate
    median: Estimate
    iqm: Estimate | None
    optimality_gap: Estimate | None
    superhuman: int
    tasks: int
    runs: int
    """Of all tasks together; 0: only means are known."""
    absent: str = ""
    """Why a statistic is None."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        found = {name: getattr(self, name) for name in ("mean", "median", "iqm", "optimality_gap")}
        record: dict[str, Any] = {name: e and e.to_json() for name, e in found.items()}
        for name in ("superhuman", "tasks", "runs", "absent"):
            record[name] = getattr(self, name)
        return record


def normalise(score: float, random: float, human: float) -> float:
    """0 for the random policy, 1 for the human; not clipped."""
    return (score - random) / (human - random)


def aggregate(runs: Runs, *, draws: int = DRAWS, seed: int = 0) -> Aggregates:
    """From the normalised score of every run. Tasks may have different numbers of runs, except for the IQM."""
    arrays = _arrays(runs)
    counts = {len(x) for x in arrays}
    drawn = _resample(arrays, draws, seed)
    pooled = len(counts) == 1
    return Aggregates(
        mean=_estimate(lambda x: _means(x).mean(-1), arrays, drawn),
        median=_estimate(lambda x: np.median(_means(x), -1), arrays, drawn),
        iqm=_estimate(lambda x: middle_mean(np.concatenate(x, -1)), arrays, drawn) if pooled else None,
        optimality_gap=_estimate(lambda x: 1 - _means([np.minimum(r, 1) for r in x]).mean(-1), arrays, drawn),
        superhuman=int((_means(arrays) >= 1).sum()),
        tasks=len(arrays),
        runs=sum(map(len, arrays)),
        absent=""
        if pooled
        else f"the IQM pools runs, and tasks have between {min(counts)} and {max(counts)}",
    )


def aggregate_means(means: Mapping[str, float]) -> Aggregates:
    """From the normalised mean of every task, where runs are not known: no interval, no IQM, no gap."""
    x = _means(_arrays({task: [mean] for task, mean in means.items()}))
    return Aggregates(
        mean=Estimate(float(x.mean())),
        median=Estimate(float(np.median(x))),
        iqm=None,
        optimality_gap=None,
        superhuman=int((x >= 1).sum()),
        tasks=len(x),
        runs=0,
        absent="IQM and optimality gap need the score of every run, and only means of tasks are known",
    )


def probability_of_improvement(x: Runs, y: Runs, *, draws: int = 2000, seed: int = 0) -> Estimate:
    """Mean over the tasks of both of P(a run of x beats a run of y), a draw counting half."""
    common = [task for task in x if task in y]
    if not common:
        raise ValueError("no task in common")
    arrays = [*_arrays({t: x[t] for t in common}), *_arrays({t: y[t] for t in common})]

    def statistic(both: Sequence[np.ndarray]) -> np.ndarray:
        pairs = zip(both[: len(common)], both[len(common) :], strict=True)
        return np.mean([_beats(a, b) for a, b in pairs], axis=0)

    return _estimate(statistic, arrays, _resample(arrays, draws, seed))


def distribution(
    runs: Runs, thresholds: Sequence[float], *, draws: int = 2000, seed: int = 0
) -> list[Estimate]:
    """Share of runs above each threshold, every task counting the same."""
    arrays = _arrays(runs)
    drawn = _resample(arrays, draws, seed)
    return [
        _estimate(lambda x, tau=tau: _means([r > tau for r in x]).mean(-1), arrays, drawn)
        for tau in thresholds
    ]


def _resample(arrays: Sequence[np.ndarray], draws: int, seed: int) -> list[np.ndarray] | None:
    """Runs of each task drawn anew with replacement: a list of [n] -> a list of [draws, n]; None for single runs."""
    if min(map(len, arrays)) < 2:
        return None
    rng = np.random.default_rng(seed)
    return [x[rng.integers(0, len(x), (draws, len(x)))] for x in arrays]


def _estimate(
    statistic: Callable[[Sequence[np.ndarray]], np.ndarray],
    arrays: Sequence[np.ndarray],
    drawn: Sequence[np.ndarray] | None,
) -> Estimate:
    """`statistic` takes a list of [.., n], one a task, to [..]."""
    value = float(statistic(arrays))
    if drawn is None:
        return Estimate(value)
    low, high = np.percentile(statistic(drawn), [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def _means(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """A list of [.., n], one a task -> [.., tasks]."""
    return np.stack([x.mean(-1) for x in arrays], -1)


def _beats(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of pairs in which a wins: [.., n], [.., m] -> [..]."""
    a, b = a[..., :, None], b[..., None, :]
    return ((a > b) + 0.5 * (a == b)).mean((-2, -1))


def _arrays(runs: Runs) -> list[np.ndarray]:
    if not runs:
        raise ValueError("no task to aggregate over")
    for task, scores in runs.items():
        if not len(scores) or not np.isfinite(scores).all():
            raise ValueError(f"{task} needs at least one run, and only finite scores: {list(scores)}")
    return [np.asarray(scores, np.float64) for scores in runs.values()]
