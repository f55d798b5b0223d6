"""Where dreams begin: real rows up to a chosen one, from the replay of a run, or from its game if it has no replay."""

from dataclasses import dataclass

import numpy as np
import torch

from oneiro import tree
from oneiro.data.batches import Stretch, gather
from oneiro.data.episode_reader import EpisodeReader
from oneiro.envs.config import EnvConfig
from oneiro.errors import OneiroError
from oneiro.spaces import ActionCodec
from oneiro.types import TimeStep

CONTEXT = 16
"""Rows shown to a world that remembers without end."""
WANDER = 40
"""Most steps of random play before a dream begins in a game without replay."""


@dataclass(frozen=True)
class Place:
    """A row of a stored episode; of the game itself: the seed of the episode and the row."""

    episode: int
    row: int


class Replayed:
    """Starts in stored episodes."""

    source = "replay"

    def __init__(self, store: EpisodeReader) -> None:
        self.store = store

    def __bool__(self) -> bool:
        return bool(len(self.store) and (self.store.lengths > 1).any())

    def draw(self, random: np.random.Generator) -> Place:
        """Any row but the last of an episode, after which nothing comes."""
        ids, places = self.store.ids, np.maximum(self.store.lengths - 1, 0)
        if not places.sum():
            raise OneiroError("the replay is empty, so no dream can begin; collect episodes first")
        place = int(random.integers(places.sum()))
        index = int(np.searchsorted(places.cumsum(), place, side="right"))
        return Place(int(ids[index]), int(place - places.cumsum()[index] + places[index]))

    def rows(self, place: Place, context: int) -> TimeStep:
        """[1, n] rows that end with the place, n = `context` or fewer; without what a world stored beside them."""
        if place.episode not in self.store:
            raise OneiroError(
                f"there is no episode {place.episode}; the replay holds {self.store.ids[0]} to {self.store.ids[-1]}"
            )
        length = self.store.length(place.episode)
        if not 0 <= place.row < length:
            raise OneiroError(f"episode {place.episode} has the rows 0 to {length - 1}, not {place.row}")
        first = max(0, place.row - context + 1)
        fields = [name.removeprefix("obs/") for name in self.store.columns]
        count = place.row + 1 - first
        stretch = Stretch(0, 0, place.episode, first, place.row + 1)
        rows = gather(self.store, fields, 1, count, [stretch])
        self.store.forget()  # the next start is elsewhere
        return rows


class Wandered:
    """Starts some random steps into the real game, for runs without a replay."""

    source = "game"

    def __init__(self, config: EnvConfig, codec: ActionCodec) -> None:
        self.config, self.codec = config, codec

    def __bool__(self) -> bool:
        return True

    def draw(self, random: np.random.Generator) -> Place:
        """A seed, and how far to wander."""
        return Place(int(random.integers(2**31)), int(random.integers(1, WANDER)))

    def rows(self, place: Place, context: int) -> TimeStep:
        """[1, n] rows of random play with this seed, the last one at the place or where the episode ended before."""
        if not 0 <= place.row <= WANDER:
            raise OneiroError(f"a dream begins after 0 to {WANDER} steps of the real game, not {place.row}")
        random = np.random.default_rng(place.episode)
        env = self.config.env()
        rows: list[TimeStep] = []
        try:
            obs, _ = env.reset(seed=place.episode % 2**31)
            env.action_space.seed(place.episode % 2**31)
            rows.append(self._row(obs, torch.zeros(self.codec.dim), 0.0, True))
            told = env.action_space.sample()
            for _ in range(place.row):
                told = told if random.random() < 0.75 else env.action_space.sample()
                obs, reward, terminated, truncated, _ = env.step(told)
                if terminated or truncated:
                    break
                action = self.codec.from_env(np.asarray(told)[None])[0]
                rows.append(self._row(obs, action, float(reward), False))
        finally:
            env.close()
        return tree.stack(rows[-context:], 1)

    def _row(self, obs: dict[str, np.ndarray], action: torch.Tensor, reward: float, first: bool) -> TimeStep:
        return TimeStep(
            obs={name: torch.from_numpy(np.ascontiguousarray(x))[None] for name, x in obs.items()},
            action=action[None],
            reward=torch.tensor([reward]),
            is_first=torch.tensor([first]),
            terminated=torch.tensor([False]),
            mask=torch.tensor([True]),
        )
