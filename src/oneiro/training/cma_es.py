"""Evolution by CMA-ES (package `cma`) of any behaviour's weights, in the dream or in the real environment.

Official settings of World Models: population 64, 16 episodes each, sigma 0.1, mean 0, the defaults of `cma`.
A generation is one batch: every rollout of every candidate at once, each row with its candidate's weights.
"""

import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from oneiro.errors import MissingExtra, OneiroError

Seeds = Literal["common", "pairs", "independent"]


@dataclass(frozen=True, kw_only=True)
class CMA:
    """Covariance matrix adaptation evolution strategy, maximising."""

    population: int = 64  # candidates per generation
    sigma: float = 0.1  # initial step size
    weight_bonus: float = 0.0  # added to the score: x mean(w^2). The released code has 0.01, a sign slip

    def __post_init__(self) -> None:
        if self.population < 4:
            raise ValueError(f"population must be at least 4, got {self.population}")
        if self.sigma <= 0:
            raise ValueError(f"sigma must be positive, got {self.sigma}")


class Evolution:
    """Ask for candidates, tell their scores. Its whole history is the list of scores, so it is saved as JSON.

    A resumed evolution repeats its own past (0.05 s a generation at 1,000 weights) instead of storing the
    covariance matrix; nothing is pickled.
    """

    def __init__(
        self, config: CMA, start: Tensor, history: list[list[float]] | None = None, *, seed: int = 0
    ) -> None:
        require_cma()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it cannot plot without matplotlib
            import cma
        self.config = config
        self.history: list[list[float]] = []
        random = np.random.default_rng(seed)
        options: dict[str, Any] = {
            "popsize": config.population,
            "seed": np.nan,  # leave NumPy's global generator alone
            "randn": lambda *shape: random.standard_normal(shape),
            "verbose": -9,
            "maxiter": np.inf,
        }
        mean = start.detach().double().cpu().numpy()
        self.strategy = cma.CMAEvolutionStrategy(mean, config.sigma, options)
        for scores in history or []:
            self.ask()
            self.tell(scores)

    def ask(self) -> Tensor:
        """Candidates [P, n] float32."""
        self._asked = self.strategy.ask()
        return torch.from_numpy(np.stack(self._asked)).float()

    def tell(self, scores: list[float]) -> None:
        """Mean score of each candidate, higher is better."""
        if not np.isfinite(scores).all():
            raise OneiroError("a candidate's score is not finite; look at the last films of this run's dream")
        self.strategy.tell(self._asked, costs(np.stack(self._asked), scores, self.config.weight_bonus))
        self.history.append([float(x) for x in scores])

    @property
    def mean(self) -> Tensor:
        """Mean of the search distribution [n]: the solution that is reported, not the luckiest sample."""
        return torch.from_numpy(np.asarray(self.strategy.mean)).float()

    @property
    def sigma(self) -> float:
        """Present step size."""
        return float(self.strategy.sigma)


def require_cma() -> None:
    """MissingExtra without the package `cma`."""
    if importlib.util.find_spec("cma") is None:
        raise MissingExtra("cma", "evolve")


def costs(solutions: np.ndarray, scores: list[float] | np.ndarray, weight_bonus: float) -> list[float]:
    """What is minimised: -(score + weight_bonus * mean(w^2))."""
    return list(-(np.asarray(scores) + weight_bonus * (solutions**2).mean(1)))


def draws(population: int, episodes: int, seeds: Seeds) -> Tensor:
    """[P * E] which random numbers each rollout of each candidate uses.

    common: episode e is the same for all candidates; pairs: candidates i and i + P/2 share theirs (the official
    "antithetic" option); independent: nobody shares.
    """
    candidate = torch.arange(population).repeat_interleave(episodes)
    episode = torch.arange(episodes).repeat(population)
    group = {"common": 0 * candidate, "pairs": candidate % ((population + 1) // 2), "independent": candidate}
    return group[seeds] * episodes + episode


def mean_scores(rollouts: Tensor, population: int) -> list[float]:
    """[P * E] returns -> mean of each candidate."""
    return rollouts.cpu().double().reshape(population, -1).mean(1).tolist()
