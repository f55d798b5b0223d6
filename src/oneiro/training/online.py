"""The stage `Online`: act, store and learn at the same time (DreamerV3's way of training).

    turn t    rows arrive in all slots -> observe -> store rows and latents -> act -> environments begin turn t + 1
              meanwhile: as many updates as the train ratio asks for, each on a batch of the replay; then the latents of
              its rows are replaced by the new ones (no latents at all if items of the batch begin blank)

The actions of a turn are chosen before its updates, so the environments can move while the networks learn, and the
result does not depend on which is faster.

With `actors` the rows are lived through in other processes, which are ahead of the updates by a bounded number of
turns; the train ratio counts the rows that were stored (`collectors`).

Several processes (`Ranks`) go through it in step. Each has its part of the slots, of the streams and of every batch;
steps, updates and the train ratio are those of all together.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from oneiro import tree
from oneiro.agent import Agent
from oneiro.behaviours.explore import HeldRandom
from oneiro.data.replay_feed import Feed, joined
from oneiro.data.replayed import ReplayBatch, Replayed
from oneiro.data.rollout import Turn
from oneiro.errors import OneiroError
from oneiro.training.acting import Acting
from oneiro.training.actors import Actors, Role
from oneiro.training.collectors import Collectors, check
from oneiro.training.fit import Fit
from oneiro.training.ray_actors import connected, require_ray
from oneiro.training.schedule import Stage, add_up
from oneiro.types import Losses

if TYPE_CHECKING:
    from oneiro.training.recipe import Recipe
    from oneiro.training.run import Run


@dataclass(frozen=True, kw_only=True)
class Online(Stage):
    """Act in all slots of the environment, and fit on what was lived through so far."""

    steps: int  # agent steps of all slots together; the row that begins an episode counts as one
    fit: Fit  # groups of parts and their optimizers
    batch: Replayed = field(default_factory=Replayed)  # which rows of the replay an update is made on
    train_ratio: float = 32.0  # rows trained on per agent step: size x length x updates / steps
    prefill: int = (
        0  # agent steps of uniformly random actions, after which learning starts; 0 = none of either
    )
    policy: Any = None  # config of a behaviour that acts instead; None = the agent itself, exploring
    overlap: bool = True  # environments in worker processes move while an update runs; the result is the same
    actors: Actors = field(default_factory=Actors)  # processes that play instead, here or on other machines
    log_every: int = 1000  # agent steps between lines in metrics.jsonl (means over the updates since)

    keeps: ClassVar[Literal["episodes", "streams"]] = "streams"

    def __post_init__(self) -> None:
        if self.steps < 0 or self.log_every < 1:
            raise ValueError("Online.steps must not be negative, and log_every be at least 1")
        if self.prefill < 0 or 0 < self.steps <= self.prefill:
            raise ValueError(
                f"Online.prefill is {self.prefill} of {self.steps} steps; it must be less, so that learning can start"
            )
        if self.prefill and self.actors.num:
            raise ValueError(
                "Online.prefill is played here, not by actors; leave it out (0), or leave out actors.num"
            )
        if not 0 < self.train_ratio < math.inf:
            raise ValueError(
                f"Online.train_ratio is {self.train_ratio}; it must be positive. To play without training, "
                "use `oneiro collect`"
            )

        if self.actors.num and not self.overlap:
            raise ValueError(
                "Online.overlap has no effect with actors, which play in other processes; leave it out, or leave out "
                "actors.num"
            )

    @property
    def rows(self) -> int:
        """Rows an update is made on; without `prefill` also the number of items with which learning starts."""
        return self.batch.size * self.batch.length

    def line(self) -> str:
        """See `Stage.line`."""
        parts = " + ".join(a for group in self.fit.groups for a in group.address)
        actors = f" in {self.actors.num} actors" if self.actors.num else ""
        prefill = f", {self.prefill:,} of them random" if self.prefill else ""
        return (
            f"{self.steps:,} steps{actors}{prefill}; fit {parts} on {self.batch.size} x {self.batch.length} rows, "
            f"train ratio {self.train_ratio:g} ({self.updates(self.steps, self.prefill):,} updates)"
        )

    def require(self, recipe: "Recipe") -> None:
        """See `Stage.require`."""
        if self.actors.num:
            require_ray()

    def total(self) -> int:
        """Agent steps."""
        return self.steps

    def updates(self, steps: int, since: int = 0) -> int:
        """Updates that are due after `steps`, if the first one was due at `since`."""
        return 1 + math.floor((steps - since) * self.train_ratio / self.rows + 1e-9)

    def run(self, run: "Run") -> None:
        """The row after a stop begins an episode in every slot; everything else goes on as it was saved."""
        with self._player(run) as begin:
            loop = _Loop(self, run, begin)
            try:
                loop.run_all()
            finally:
                run.before_save = None
                loop.close()

    @contextmanager
    def _player(self, run: "Run") -> Iterator["Begin"]:
        """Who plays: environments here, or actors; they begin when the loop asks for it."""
        env, device = run.recipe.env, run.device
        if not self.actors.num:
            num, is_async = run.ranks.split(env.num, "env.num"), getattr(env, "workers", "sync") == "async"
            overlap = self.overlap and is_async
            with run.env(replace(env, num=num)) as slots:
                yield lambda agent, _: Acting(
                    agent,
                    slots,
                    run.replay,
                    seed=run.recipe.seed,
                    device=device,
                    overlap=overlap,
                    latents=bool(self.batch.context),
                )
            return
        check(self.actors, env.num, run.ranks.count)
        latents = bool(self.batch.context)
        role = Role(recipe=run.recipe, policy=self.policy, latents=latents, spaces=run.spaces)
        run.progress.note(f"starting {self.actors.num} experience actors")
        with connected(self.actors) as cluster:
            yield lambda agent, updates: Collectors(
                self.actors, cluster, run.replay, player=agent, role=role, updates=updates
            )


Begin = Callable[[Agent, Callable[[], int]], Acting | Collectors]
"""Given who plays, and the number of updates so far."""


class _Loop:
    """The stage at work."""

    def __init__(self, stage: Online, run: "Run", begin: Begin) -> None:
        self.stage, self.run, self.replay, self.ranks = stage, run, run.replay, run.ranks
        self.done: dict[str, Any] = run.done
        if not self.done:
            self._check()
            self.done |= {"steps": 0, "updates": 0, "logged": 0, "episodes": 0, "crashed": 0}
        size = self.ranks.split(stage.batch.size, "the number of items of a batch (batch.size)")
        self.batch = replace(stage.batch, size=size)
        self.feed = Feed(self.batch, self.replay, self.ranks.seed(run.stage_seed))
        if "feed" in self.done:
            self.feed.load_state(self.done["feed"])
        self.fitter = run.fitter(stage.fit)
        policy = stage.policy and Agent(run.agent.world, stage.policy.build(run.spaces))
        self.player: Agent = policy or run.agent
        self.is_random = self.done["steps"] < stage.prefill
        self.begin = begin
        self.acting: Acting | Collectors | None = None
        self.is_ready = False
        self.frames = int(getattr(run.recipe.env, "frames_per_step", 1))
        run.before_save = self._note_state
        run.progress.advance(self.done["steps"])

    def run_all(self) -> None:
        """Go on until all steps are made."""
        self._learn()  # what a stop left undone
        first = self._random_player() if self.is_random else self.player
        self.acting = self.begin(first, lambda: self.done["updates"])
        while self.done["steps"] < self.stage.steps:
            self._end_prefill()
            self._count(self.acting.live(self._stop_if_asked))
            if self.done["steps"] < self.stage.steps:
                self.acting.go_on()
            self._learn()
            self._log()
            self.run.tick()

    def close(self) -> None:
        """End the threads."""
        if self.acting is not None:
            self.acting.close()
        self.feed.close()

    def _random_player(self) -> Agent:
        """Every action is equally likely, whatever was before."""
        policy = HeldRandom(hold=(1,)).build(self.run.spaces)
        return Agent(self.run.agent.world, policy.to(self.run.device))

    def _end_prefill(self) -> None:
        """The agent itself plays on from here, if enough was played at random."""
        if self.is_random and self.done["steps"] >= self.stage.prefill:
            assert isinstance(self.acting, Acting)
            self.acting.hand_over(self.player)
            self.is_random = False

    # -- learning --------------------------------------------------------------------------------------------

    def _learn(self) -> None:
        """The updates that are due."""
        due = self._due()
        if not due:
            return
        self.run.agent.train()
        for _ in range(due):
            began = time.perf_counter()
            batch = self.feed.take()
            context = tree.to(batch.context, self.run.device)
            before = self.run.agent.world.recall(context, self.batch.size) if context else None
            losses = self.fitter.apply(tree.to(batch.rows, self.run.device), before)
            self._write_back(batch, losses)
            self.done["updates"] += 1
            self._sum({**losses.metrics, "time/update": torch.tensor(time.perf_counter() - began)})
            self.run.progress.advance(0, updates=1)
            self.run.tick()

    def _due(self) -> int:
        if not self.is_ready:
            items = self.feed.sampler.items
            everywhere, without = self.ranks.sum(items, items == 0)
            if (not self._has_enough(everywhere) and "since" not in self.done) or without:
                return 0
            self.done.setdefault("since", self.done["steps"])
            self.is_ready = True
        return self.stage.updates(self.done["steps"], self.done["since"]) - self.done["updates"]

    def _has_enough(self, items: int) -> bool:
        """To start learning, with so many items of all processes."""
        if self.stage.prefill:
            return self.done["steps"] >= self.stage.prefill
        return items >= self.stage.rows

    @torch.no_grad()
    def _write_back(self, batch: ReplayBatch, losses: Losses) -> None:
        """The latents of the rows, as they are now; not those of an update that was skipped."""
        if losses.trace is None or self.run.guard.in_a_row or not self.batch.context:
            return
        flat = tree.map(lambda x: x.detach().flatten(0, 1), losses.trace)
        memo = self.run.agent.world.memo(flat)
        shape = (self.batch.size, self.batch.length)
        self.feed.write_back(batch, {name: x.unflatten(0, shape) for name, x in memo.items()})

    # -- keeping track ---------------------------------------------------------------------------------------

    def _count(self, turn: Turn) -> None:
        own = int(turn.arrived.sum())
        arrived, crashed, count = self.ranks.sum(own, len(turn.arrived) - own, len(turn.ended))
        ended = [x for found in self.ranks.gather(turn.ended) for x in found] if count else []
        self.done["steps"] += arrived
        self.done["episodes"] += count
        self.done["crashed"] += crashed
        shown: dict[str, float] = {}
        for episode in ended:
            shown = {
                "episode/score": episode.score,
                "episode/length": float(episode.length),
                "episode/frames": float(self.done["steps"] * self.frames),
            }
            self.run.record(self.done["steps"], shown)
        shown.pop("episode/frames", None)
        self.run.progress.advance(arrived, env_steps=arrived, metrics=shown)

    def _sum(self, metrics: Mapping[str, Tensor]) -> None:
        """Sums since the last line are part of the carry, so a resumed run adds on."""
        add_up(self.run.carry.setdefault("sums", {}), metrics)

    def _log(self) -> None:
        steps = self.done["steps"]
        if steps - self.done["logged"] < self.stage.log_every and steps < self.stage.steps:
            return
        self.done["logged"] = steps - steps % self.stage.log_every
        sums = self.run.carry.pop("sums", {})
        count = sums.pop("count", None)
        means = {name: float(value / count) for name, value in sums.items()}
        seconds = means.pop("time/update", None)
        about = {
            "online/updates": float(self.done["updates"]),
            "online/episodes": float(self.done["episodes"]),
            "online/crashed": float(self.done["crashed"]),
            "replay/rows": float(self.ranks.sum(self.replay.rows)[0]),
            "guard/skipped": float(self.run.guard.skipped),
        }
        self.run.record(steps, means | about, timing={} if seconds is None else {"time/update": seconds})
        self.run.progress.advance(0, env_steps=0, metrics=means)

    def _note_state(self) -> None:
        """Before a checkpoint: latents are on their way no more, and the feed says where it is."""
        self.feed.settle()
        self.done["feed"] = joined(self.ranks.gather(self.feed.state()))

    def _stop_if_asked(self) -> None:
        """While an environment is waited for; several processes can only stop together, after the turn."""
        if self.ranks.count == 1 and self.run.stop.requested:
            self.run.tick()

    def _check(self) -> None:
        """Refuse what could never train."""
        stage, capacity = self.stage, self.run.recipe.data.capacity
        count, rows = self.run.recipe.env.num, self.ranks.sum(self.replay.rows)[0]
        item = stage.batch.context + stage.batch.length
        lead = count * (item - 1)  # rows that cannot begin an item
        if not stage.steps:
            return
        least = 1 if stage.prefill else stage.rows
        start = f"learning starts when {least:,} items of {item} rows are stored"
        never = f"a train ratio of {stage.train_ratio:g} can never be met"
        if capacity < least + 2 * lead:
            raise OneiroError(
                f"{start}, but the capacity of the replay is {capacity:,} rows: {never}. Set data.capacity "
                f"to at least {least + 2 * lead:,}"
            )
        if rows + stage.steps < least + lead:
            raise OneiroError(
                f"{start}, after {least + lead:,} steps in {count} slots, but the stage has {stage.steps:,}: "
                f"{never}. Set more steps, or a smaller batch"
            )
