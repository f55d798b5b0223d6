"""`RecentSegments`: short segments of episodes, mostly of the newest ones (DIAMOND).

Source: the released code of arXiv 2405.12399; the paper does not mention the weights.

    pads="left"    stop = min(rows, t + 1 + u), start = stop - length       u uniform in 0 .. length - 1
    pads="both"    start = t - u, stop = start + length                     t a row of the episode, uniform

What lies outside of the episode is padding. The code counts steps, so its last frames are no rows; here they are.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from oneiro.data.batches import Stretch, gather
from oneiro.data.episode_reader import EpisodeReader
from oneiro.data.samplers import Sampler, SamplerConfig
from oneiro.types import TimeStep


@dataclass(frozen=True, kw_only=True)
class RecentSegments(SamplerConfig):
    """Segments [B, T] inside one episode, padded where they reach out of it."""

    size: int = 32
    """B, segments per batch."""
    length: int = 6
    """T, rows per segment."""
    pads: Literal["left", "both"] = "left"
    """Where a segment may reach out of its episode: before the start only, or after the end too."""
    quarters: tuple[float, ...] = (0.1, 0.1, 0.1, 0.7)
    """Share of the batch from each equal group of episodes by age, the newest last; () = by number of rows."""
    fields: tuple[str, ...] = ()
    """What to read; () is everything but the memo."""

    def __post_init__(self) -> None:
        for name in ("size", "length"):
            if getattr(self, name) < 1:
                raise ValueError(f"RecentSegments.{name} is {getattr(self, name)}; it must be at least 1")
        if self.pads not in ("left", "both"):
            raise ValueError(f"RecentSegments.pads is {self.pads!r}; use left or both")
        if self.quarters and (min(self.quarters) < 0 or abs(sum(self.quarters) - 1) > 1e-6):
            raise ValueError(f"RecentSegments.quarters must be shares that add up to 1, got {self.quarters}")

    def build(self, store: EpisodeReader, seed: int) -> "RecentSegmentSampler":
        """The sampler over `store`."""
        return RecentSegmentSampler(self, store, seed)


class RecentSegmentSampler(Sampler):
    """See `RecentSegments`."""

    def __init__(self, config: RecentSegments, store: EpisodeReader, seed: int) -> None:
        self.config = config
        super().__init__(store, config.fields, seed)

    def _index(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        self._ids, self._lengths = ids, lengths
        self._weights = recency_weights(lengths, self.config.quarters)

    def _count(self) -> int:
        return max(1, int(self._lengths.sum()) // (self.config.size * self.config.length))

    def _batch(self, k: int) -> TimeStep:
        size, length = self.config.size, self.config.length
        rng = np.random.default_rng([self.seed, k])
        episode = rng.choice(len(self._ids), size=size, p=self._weights)
        rows = self._lengths[episode]
        t, u = rng.integers(rows), rng.integers(length, size=size)
        start = np.minimum(rows, t + 1 + u) - length if self.config.pads == "left" else t - u
        stretches = [
            segment(b, int(self._ids[episode[b]]), int(start[b]), length, int(rows[b])) for b in range(size)
        ]
        return gather(self.store, self._fields, size, length, stretches)


def segment(b: int, id: int, start: int, length: int, rows: int) -> Stretch:
    """What of the rows start .. start + length lies in an episode of `rows` rows, and where it goes in row b."""
    begin, end = max(start, 0), min(start + length, rows)
    return Stretch(b, begin - start, id, begin, end)


def recency_weights(lengths: np.ndarray, quarters: tuple[float, ...]) -> np.ndarray:
    """[N] probabilities of episodes, oldest first.

    Equal groups by age share `quarters`, the last group takes the remainder; alike inside a group. With fewer
    episodes than groups: in proportion to their rows.
    """
    n, groups = len(lengths), len(quarters)
    if not groups or n < groups:
        return lengths / lengths.sum()
    sizes = [n // groups] * (groups - 1)
    sizes.append(n - sum(sizes))
    return np.repeat(np.array(quarters) / sizes, sizes)
