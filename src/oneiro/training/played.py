"""How quickly and how long the players of a schedule play here, from some seconds of each.

Short episodes end first, so the length of an episode is not the mean of those that ended: steps of all slots are
divided by ends, and what has not ended yet counts as steps without an end. Players are untrained; a trained one may
play longer, up to the environment's own limit.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from oneiro.agent import Agent
from oneiro.behaviours.population import Population
from oneiro.data.episodes import Episode
from oneiro.data.replay import Replay
from oneiro.data.rollout import Turn
from oneiro.data.store import EpisodeStore
from oneiro.errors import MissingExtra
from oneiro.training.acting import Acting, Playing
from oneiro.training.plan import Duration
from oneiro.training.recipe import Recipe
from oneiro.training.schedule import Episodes

_PATIENCE = 2.0  # seconds of playing, at most
_MANY = 64  # ends of episodes after which no more are awaited
_KEPT = 64 << 20  # bytes of rows from which the size on the disk is told


@dataclass(frozen=True, kw_only=True)
class Played:
    """What some seconds of play told."""

    rate: float
    """Rows a second, of all slots together; the reset is a row."""
    steps: float | None
    """Of an episode; None: none ended, and the environment has no limit."""
    longest: int
    """The environment's limit in steps; 0: nobody knows."""
    bytes_per_row: float
    """On the disk."""

    @property
    def rows(self) -> float | None:
        """Of an episode."""
        return None if self.steps is None else self.steps + 1

    def duration(self, episodes: int) -> Duration | None:
        """Of so many episodes."""
        if self.rows is None:
            return None
        most = episodes * (self.longest + 1) / self.rate if self.longest else None
        return Duration(about=episodes * self.rows / self.rate, most=most)


class Players:
    """Those of a recipe, each measured once in each environment in which it plays. Use as a context."""

    def __init__(self, recipe: Recipe, agent: Agent, notes: list[str]) -> None:
        self.recipe, self.agent, self.notes = recipe, agent, notes
        self._opened = ExitStack()
        self._envs: list[tuple[Any, gymnasium.vector.VectorEnv | None]] = []
        self._found: list[tuple[Any, str, Played]] = []

    def __enter__(self) -> "Players":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def of(self, episodes: Episodes) -> Played | None:
        """Who plays them, there; None without the environment's extra. Policies that see nothing count as one."""
        config = episodes.env or self.recipe.env
        kind = "blind" if episodes.policy else "population" if episodes.candidates else "agent"
        known = self._known(config, kind)
        if known is None and (env := self._env(config)) is not None:
            known = _play(self._player(episodes), env, self.recipe, config.longest)
            self._found.append((config, kind, known))
        return known

    def live(self, policy: Any, latents: bool) -> Played | None:
        """Who acts in an online stage, storing streams and perhaps latents."""
        kind, config = "blind" if policy else "agent", self.recipe.env
        if known := self._known(config, kind):
            return known
        if (env := self._env(config)) is None:
            return None
        player = self._player(Episodes(count=0, policy=policy))
        found = _live(player, env, self.recipe, config.longest, latents)
        self._found.append((config, kind, found))
        return found

    def _known(self, config: Any, kind: str) -> Played | None:
        return next((found for env, other, found in self._found if (env, other) == (config, kind)), None)

    def _player(self, episodes: Episodes) -> Agent:
        world = self.agent.world
        if episodes.policy:
            return Agent(world, episodes.policy.build(world.spaces))
        return Agent(world, Population(self.agent.behaviour)) if episodes.candidates else self.agent

    def _env(self, config: Any) -> gymnasium.vector.VectorEnv | None:
        for known, env in self._envs:
            if known == config:
                return env
        env = None
        try:
            env = config.make()
            self._opened.callback(env.close)
        except MissingExtra as missing:
            self.notes.append(f"the environment was not tried: {missing}")
        self._envs.append((config, env))
        return env


def length(steps: float, ends: int, longest: int) -> float | None:
    """Mean steps of an episode that `ends` times in `steps` steps ended by itself and is cut off after `longest`.

    Every step is taken to end it with the same probability p = ends / steps. Without a cut (`longest` 0) that is
    1 / p; with one, 1 + (1 - p) + .. + (1 - p)^(longest - 1).
    """
    if not ends:
        return longest or None
    if not longest:
        return steps / ends
    p = min(1.0, ends / steps)
    return (1 - (1 - p) ** longest) / p


@dataclass
class _Count:
    """Rows, steps and ends of the turns that were played, and how long they took."""

    longest: int
    rows: int = 0
    steps: int = 0
    ends: int = 0
    by_itself: int = 0
    seconds: float = 0.0

    def play(self, live: Callable[[], Turn], go_on: Callable[[], None]) -> Iterator[Turn]:
        """Turns, until enough was seen; the first begins the episodes and is not timed."""
        began = 0.0
        while True:
            turn = live()
            yield turn
            if began:
                self.rows += int(turn.arrived.sum())
                self.steps += int((turn.arrived & ~turn.is_first).sum())
                self.ends += len(turn.ended)
                self.by_itself += sum(not 0 < self.longest <= ended.length for ended in turn.ended)
                self.seconds = time.perf_counter() - began
            else:
                began = time.perf_counter()
            if self.rows and (self.seconds > _PATIENCE or self.ends >= _MANY):
                return
            go_on()

    def played(self, bytes_per_row: float) -> Played:
        """The record."""
        return Played(
            rate=self.rows / self.seconds,
            steps=length(self.steps, self.by_itself, self.longest),
            longest=self.longest,
            bytes_per_row=bytes_per_row,
        )


def _play(player: Agent, env: gymnasium.vector.VectorEnv, recipe: Recipe, longest: int) -> Played:
    """Play in all slots, and store the first of it."""
    count, turns, size = _Count(longest), [], 0
    playing = Playing(player, env, seed=recipe.seed, device=player.world.device, overlap=False)
    for turn in count.play(lambda: playing.live()[0], playing.go_on):
        if size < _KEPT:
            turns.append(turn)
            size += sum(column.nbytes for column in turn.columns().values())
    with tempfile.TemporaryDirectory() as folder:
        store = EpisodeStore(Path(folder), ram=1 << 28)
        for episode in _episodes(turns):
            store.add(episode)
        store.flush()
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        return count.played(size / store.rows)


def _episodes(turns: list[Turn]) -> Iterator[Episode]:
    """Those of every slot; the last of each is unfinished."""
    ids = np.stack([turn.ids for turn in turns])
    for id in np.unique(ids).tolist():
        (slot,) = np.unique(np.nonzero(ids == id)[1])
        own = [turn for turn in turns if turn.ids[slot] == id and turn.arrived[slot]]
        if own:
            yield Episode(
                id=id,
                obs={name: np.stack([turn.obs[name][slot] for turn in own]) for name in own[0].obs},
                action=np.stack([turn.action[slot] for turn in own]),
                reward=np.array([turn.reward[slot] for turn in own]),
                terminated=np.array([turn.terminated[slot] for turn in own]),
            )


def _live(
    player: Agent, env: gymnasium.vector.VectorEnv, recipe: Recipe, longest: int, latents: bool
) -> Played:
    """Act and store as `Online` does, without updates."""
    count = _Count(longest)
    with tempfile.TemporaryDirectory() as folder:
        replay = Replay(Path(folder), streams=env.num_envs, ram=int(recipe.data.ram * (1 << 30)))
        device = player.world.device
        acting = Acting(player, env, replay, seed=recipe.seed, device=device, overlap=False, latents=latents)
        for _ in count.play(acting.live, acting.go_on):
            pass
        replay.flush()
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.rows"))
        kept = replay.memo_type.nbytes if replay.memo_type else 0
        return count.played(size / replay.rows + kept)
