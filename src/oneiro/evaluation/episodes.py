"""Scores of an agent in the real environment and in its own dream, with the protocol that made them."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from oneiro import tree
from oneiro.agent import Agent
from oneiro.data.collect import play
from oneiro.dreaming import dream_score
from oneiro.errors import OneiroError
from oneiro.evaluation.seeding import evaluating, renumber
from oneiro.evaluation.stats import Summary, iqm, median, summarize
from oneiro.types import Carry


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Undiscounted returns of single episodes, in the order of their ids."""

    score: list[float]
    length: list[int]
    """Decisions (real or imagined) of each episode."""
    ids: list[int]
    """Which episodes; two policies with the same seed and ids met the same starts."""
    crashed: int = 0
    """Episodes that a dying worker cut short; they are not among the scores."""
    protocol: dict[str, Any] = field(default_factory=dict)
    """What was played: kind, environment or dream, seed, exploration, ..."""

    @property
    def summary(self) -> Summary:
        """Mean with its 95 % interval."""
        return summarize(self.score)

    def typical(self) -> int:
        """Id of the episode whose score is nearest the median: the one to film."""
        middle = median(self.score)
        return self.ids[int(np.abs(np.array(self.score) - middle).argmin())]

    def to_json(self) -> dict[str, Any]:
        """Everything, with the summary beside it for readers of the file."""
        extra = {"median": median(self.score), "iqm": iqm(self.score)}
        return {"summary": self.summary.to_json() | extra, **asdict(self)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Scores":
        """Inverse of `to_json`."""
        return cls(**{key: value for key, value in record.items() if key != "summary"})

    def save(self, path: Path) -> None:
        """Write as JSON, all or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(self.to_json(), indent=1) + "\n")
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """Read what `save` wrote; OneiroError if it is something else."""
        try:
            return cls.from_json(json.loads(path.read_text()))
        except (ValueError, TypeError, AttributeError) as error:
            raise OneiroError(f"{path} holds no scores ({error}); run oneiro evaluate again") from error


def evaluate(
    env: gymnasium.vector.VectorEnv,
    agent: Agent,
    *,
    episodes: int,
    seed: int,
    explore: bool = False,
    about: dict[str, Any] | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> Scores:
    """Play episodes 0 .. episodes-1 of `seed`; `about` is added to the protocol (environment, policy, ...).

    `watch(steps, episodes)` is told after each step of the batch, and after each episode, what was done since.
    """
    watch = watch or (lambda steps, episodes: None)
    played = []
    with evaluating(agent, seed=seed):
        for episode in play(
            env,
            agent,
            range(episodes),
            seed=seed,
            explore=explore,
            record=False,
            on_step=lambda n: watch(n, 0),
        ):
            played.append((episode.id, episode.info))
            watch(0, 1)
    played.sort(key=lambda pair: pair[0])
    whole = [(id, info) for id, info in played if not info["crashed"]]
    if not whole:
        raise OneiroError(
            f"none of {episodes} episodes ended regularly; see oneiro doctor for the environment"
        )
    return Scores(
        score=[float(info["score"]) for _, info in whole],
        length=[int(info["length"]) for _, info in whole],
        ids=[id for id, _ in whole],
        crashed=len(played) - len(whole),
        protocol={"kind": "real", "seed": seed, "episodes": episodes, "explore": explore, **(about or {})},
    )


def dream_scores(
    agent: Agent,
    starts: Carry,
    horizon: int,
    temperature: float = 1.0,
    *,
    episodes: int | None = None,
    seed: int = 0,
) -> Scores:
    """Dream one episode from each of `starts` (or `episodes` of them, beginning again when they run out).

    Every dream has random numbers of its own. A dream ends when `terminated` is drawn, or at the horizon.
    """
    device = agent.world.device
    with evaluating(agent, seed=seed):
        count = tree.size(starts) if episodes is None else episodes
        index = torch.arange(count, device=device) % tree.size(starts)
        carry = tree.take(starts, index)
        carry = Carry(state=renumber(carry.state), memory=carry.memory)
        score, length = dream_score(agent.world, agent.behaviour, carry, horizon, temperature=temperature)
    protocol = {"kind": "dream", "seed": seed, "episodes": count, "horizon": horizon}
    return Scores(
        score=score.tolist(),
        length=length.tolist(),
        ids=list(range(count)),
        protocol=protocol | {"temperature": temperature},
    )
