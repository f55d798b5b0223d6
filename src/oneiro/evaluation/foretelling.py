"""How well a world foretells the sign of each reward and the end of the episode: precision, recall, F1; AUC of ends.

Teacher-forced: before every foretold row the world has seen all real rows; it is given the real action, imagines one
step, and what it says of reward and end is compared with what came. Rewards and ends are rare in most games, so the
share of right answers says little, and F1 of each class says more. An end that comes by chance is never likelier than
not, so that its F1 is 0 whatever the world knows; AUC says whether the world knows when it is near.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from oneiro import tree
from oneiro.data.episodes import Episode
from oneiro.evaluation.open_loop import rows
from oneiro.evaluation.seeding import evaluating
from oneiro.types import TimeStep
from oneiro.world import WorldModel

SIGNS = {"negative": -1, "zero": 0, "positive": 1}
GOES_ON = 0.5
"""The world says that the episode ends where its probability of going on is below this."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class against the others; precision, recall and F1 are NaN where they are not defined."""

    found: int
    """Rows of the class that were foretold as such."""
    foretold: int
    """Rows foretold as of the class."""
    true: int
    """Rows of the class."""

    @property
    def precision(self) -> float:
        """Share of the foretold rows that are of the class."""
        return self.found / self.foretold if self.foretold else float("nan")

    @property
    def recall(self) -> float:
        """Share of the rows of the class that were foretold."""
        return self.found / self.true if self.true else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of both; NaN where the class neither comes nor is foretold."""
        total = self.foretold + self.true
        return 2 * self.found / total if total else float("nan")

    def to_json(self) -> dict[str, float | int | None]:
        """Counts and shares; None for NaN."""
        shares = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {
            "rows": self.true,
            "foretold": self.foretold,
            "found": self.found,
            **{name: None if np.isnan(value) else round(value, 4) for name, value in shares.items()},
        }


@dataclass(frozen=True, kw_only=True)
class Foretelling:
    """Over all rows but the first of each episode."""

    reward: dict[str, ClassScore]
    """By sign: "negative", "zero", "positive"; empty if the world foretells no reward."""
    end: ClassScore | None
    """Termination, not truncation; None if the world foretells no end."""
    end_auc: float
    """How often a row that ends was given a greater chance of it than one that does not (ties count half): 1 = always,
    0.5 = the world knows nothing. NaN if it foretells no end, or no row or every row ends."""
    rows: int
    """How many rows were foretold."""

    @classmethod
    def of(cls, sign: np.ndarray | None, end: np.ndarray | None) -> "Foretelling":
        """From [2, n] each: sign of the reward, foretold and true; chance of an end, and whether it came."""
        some = sign if sign is not None else end
        return cls(
            reward={}
            if sign is None
            else {name: class_score(sign[0] == value, sign[1] == value) for name, value in SIGNS.items()},
            end=None if end is None else class_score(end[0] > 1 - GOES_ON, end[1] > 0),
            end_auc=float("nan") if end is None else auc(end[0], end[1] > 0),
            rows=0 if some is None else some.shape[1],
        )


def class_score(foretold: np.ndarray, true: np.ndarray) -> ClassScore:
    """Of two bool arrays of one shape."""
    found = int((foretold & true).sum())
    return ClassScore(found=found, foretold=int(foretold.sum()), true=int(true.sum()))


def auc(score: np.ndarray, true: np.ndarray) -> float:
    """Area under the curve of true against false positives, of scores [n] and bool [n]; NaN if a class is empty."""
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # of equal scores the mean one
    yes, no = int(true.sum()), int((~true).sum())
    return float((rank[true].sum() / yes - (yes + 1) / 2) / no) if yes and no else float("nan")


def foretelling(
    world: WorldModel,
    episodes: Sequence[Episode],
    *,
    temperature: float = 0.0,
    batch: int = 32,
    seed: int = 0,
) -> Foretelling:
    """Foretell every row of the episodes, `batch` of them at once. Temperature 0: the world's likeliest step.

    Its rewards are compared by their sign; one that is not exactly zero has one.
    """
    if not episodes:
        raise ValueError("there is no episode to foretell")
    signs: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    with evaluating(world, seed=seed):
        for begin in range(0, len(episodes), batch):
            _foretell(world, episodes[begin : begin + batch], temperature, signs, ends)
    return Foretelling.of(*(np.concatenate(found, 1) if found else None for found in (signs, ends)))


def _foretell(
    world: WorldModel,
    episodes: Sequence[Episode],
    temperature: float,
    signs: list[np.ndarray],
    ends: list[np.ndarray],
) -> None:
    """Adds [2, n] for the rows at each step of time, as `Foretelling.of` takes them."""
    longest = max(len(episode) for episode in episodes)
    real = tree.stack([_padded(rows(e, 0, len(e), world.device), longest) for e in episodes])
    step, state = world.stepper(), world.start(len(episodes))
    for t in range(longest):
        row = real.at(t)
        live = row.mask.cpu()
        if t and live.any():
            assert row.action is not None
            assert row.reward is not None
            ahead = step(tree.clone(state), row.action, temperature)
            if ahead.reward is not None:
                signs.append(torch.stack([ahead.reward.sign(), row.reward.sign()]).cpu()[:, live].numpy())
            if ahead.cont is not None:
                over = torch.stack([1 - ahead.cont, row.terminated])
                ends.append(over.cpu()[:, live].numpy())
        state = world.observe(state, row)


def _padded(row: TimeStep, length: int) -> TimeStep:
    """[T] -> [length], masked after its end."""
    missing = length - len(row.mask)
    return tree.map(lambda x: torch.cat([x, torch.zeros_like(x[:1]).expand(missing, *x.shape[1:])]), row)
