"""Returns of the episodes a run was trained on, by frame: how Dreamer reports scores.

These are episodes of the policy that collects, which samples its actions and changes while an episode lasts. A
separate evaluation of the final policy (`episodes.evaluate`) is another measurement; both are labelled wherever
they are shown. A run logs one event of metrics.jsonl for every episode that ends in training:

    {"step": 5120, "episode/score": 210.0, "episode/length": 702, "episode/frames": 20480, ...}

`step` counts decisions of all slots together, resets included as the stage counts them; frames are those of the game.

Read-outs of a run of N frames (DreamerV3's own, recovered from its released curves):

    2024 paper    mean over the episodes that end in the last 2.5 %, (390k, 400k] on Atari 100k
    2023 paper    bins of 2.5 %, empty ones filled with the last value before; mean over those of (92.5 %, 97.5 %]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from oneiro.training.log import read_metrics

LAST = 0.025
"""Share of the frames whose episodes make the score of a run."""
BINS = 40
"""Of a learning curve; on Atari 100k each is 10,000 frames."""


@dataclass(frozen=True, kw_only=True)
class TrainingEpisodes:
    """Episodes in the order of their ends, all arrays [n]."""

    step: np.ndarray
    """Decisions made in the run when the episode ended."""
    frame: np.ndarray
    """Frames of the game, likewise."""
    score: np.ndarray
    """Sum of the rewards of the environment, not discounted."""
    length: np.ndarray
    """Decisions of the episode."""

    def __len__(self) -> int:
        return len(self.score)

    def between(self, low: float, high: float) -> np.ndarray:
        """Scores of the episodes that end in frames (low, high]."""
        return self.score[(self.frame > low) & (self.frame <= high)]

    def bins(self, end: float, *, width: float | None = None, fill: bool = False) -> np.ndarray:
        """Mean score of each bin (k width, (k + 1) width] up to frame `end`: float64 [bins], nan where none ended.

        `fill`: a bin in which no episode ends has the value before it. Bins before the first episode stay nan.
        """
        width = width or end / BINS
        edges = width * np.arange(round(end / width) + 1)
        parts = [self.between(low, high) for low, high in pairwise(edges)]
        means = np.array([part.mean() if len(part) else np.nan for part in parts])
        return _filled(means) if fill else means

    def final(self, end: float, share: float = LAST) -> float | None:
        """Mean over the episodes that end in the last `share` of `end` frames; None if none does."""
        found = self.between(end * (1 - share), end)
        return float(found.mean()) if len(found) else None

    def final_2023(self, end: float) -> float | None:
        """The read-out of the 2023 paper, (370k, 390k] of 400k frames, filled forward; None before any episode."""
        last = self.bins(end, fill=True)[-3:-1]
        return None if np.isnan(last).any() else float(last.mean())


def read_training_episodes(
    events: Path | Sequence[dict[str, Any]], frames_per_step: int = 1
) -> TrainingEpisodes:
    """From metrics.jsonl or its events; empty if the run logged no training episode."""
    if isinstance(events, Path):
        events = read_metrics(events) if events.exists() else []
    found = [event for event in events if "episode/score" in event]
    step = np.array([event["step"] for event in found], np.float64)
    frame = [event.get("episode/frames", event["step"] * frames_per_step) for event in found]
    return TrainingEpisodes(
        step=step,
        frame=np.array(frame, np.float64),
        score=np.array([event["episode/score"] for event in found], np.float64),
        length=np.array([event.get("episode/length", np.nan) for event in found], np.float64),
    )


def _filled(values: np.ndarray) -> np.ndarray:
    known = np.where(np.isnan(values), 0, np.arange(len(values)))
    return values[np.maximum.accumulate(known)]
