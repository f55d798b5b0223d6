"""Stages: what a run does, in order. A schedule is a dataclass whose fields are stages.

A stage keeps its progress in `run.done` (JSON) and `run.carry` (tensors), both saved with every checkpoint, and
calls `run.tick()` wherever it may be interrupted; repeating it after a stop goes on from there.
"""

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from oneiro import tree
from oneiro.agent import Agent
from oneiro.data.batches import Stretch, choose, gather
from oneiro.data.collect import play
from oneiro.data.samplers import prefetch
from oneiro.training.fit import Fit

if TYPE_CHECKING:
    from oneiro.training.run import Run


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Episodes that a stage plays in a real environment."""

    count: int
    policy: Any = None  # config of a random behaviour; None = the agent
    env: Any = None  # None = the recipe's
    candidates: bool = False  # every row acts with weights of its own


class Stage(ABC):
    """One entry of a schedule."""

    keeps: ClassVar[Literal["episodes", "streams"] | None] = None
    """What it adds to the experience: whole episodes (`run.store`), streams of rows (`run.replay`), or nothing."""

    @abstractmethod
    def run(self, run: "Run") -> None:
        """Do what is left of this stage."""

    @abstractmethod
    def line(self) -> str:
        """What it does, in one line for `oneiro show`."""

    @abstractmethod
    def total(self) -> int:
        """How many ticks the progress bar has; 0: nothing to do."""

    def plays(self, round: int) -> list[Episodes]:
        """Whole episodes that it plays in the `round`th round of the schedule (from 1), for `oneiro show`."""
        return []


@dataclass(frozen=True, kw_only=True)
class Collect(Stage):
    """Play episodes in the real environment and keep them."""

    episodes: int  # how many
    policy: Any = None  # config of a random behaviour; None, and in later rounds: the agent itself, exploring
    env: Any = None  # its environment; None = the recipe's
    flush_seconds: float = 20.0  # what a kill may cost

    keeps: ClassVar = "episodes"

    def line(self) -> str:
        """See `Stage.line`."""
        return f"collect {self.episodes:,} episodes with {_name(self.policy) if self.policy else 'the agent'}"

    def total(self) -> int:
        """Episodes."""
        return self.episodes

    def plays(self, round: int) -> list[Episodes]:
        """See `Stage.plays`."""
        return [Episodes(count=self.episodes, policy=self.policy if round == 1 else None, env=self.env)]

    def run(self, run: "Run") -> None:
        """Episode k depends on (seed, k) alone, so those a stop cut short are simply played again."""
        store, done = run.collected, run.done
        if "first" not in done:
            done["first"] = int(store.ids[-1]) + 1 if len(store) else 0
            run.save()  # before anything is stored: killed later, the run has to know which episodes are its own
        ids = range(done["first"], done["first"] + self.episodes)
        missing = [i for i in ids if i not in store]
        run.progress.advance(self.episodes - len(missing))
        policy = self.policy if run.round == 1 else None
        agent = Agent(run.agent.world, policy.build(run.spaces)) if policy else run.agent
        flushed = time.monotonic()
        with run.env(self.env) as env:
            episodes = play(
                env,
                agent.eval(),
                missing,
                seed=run.recipe.seed,
                explore=True,
                on_step=lambda n: run.progress.advance(0, env_steps=n),
            )
            for episode in episodes:
                store.add(episode)
                run.progress.advance(1, metrics={"collect/score": float(episode.info["score"])})
                if time.monotonic() - flushed > self.flush_seconds:
                    store.flush()
                    flushed = time.monotonic()
                run.tick()
        store.flush()
        infos = [store.info(i) for i in ids if i in store]
        scores = np.array([float(info["score"]) for info in infos])
        run.record(
            self.episodes,
            {
                "collect/score": float(scores.mean()),
                "collect/score_std": float(scores.std()),
                "collect/rows": float(store.rows),
                "collect/crashed": float(sum(bool(info.get("crashed")) for info in infos)),
            },
        )


@dataclass(frozen=True, kw_only=True)
class Update(Stage):
    """Fit parts on batches of stored rows."""

    fit: Fit  # groups of parts and their optimizers
    batch: Any  # a sampler config of oneiro.data.samplers
    updates: int  # optimizer steps
    log_every: int = 50  # updates between lines in metrics.jsonl (means over them)

    def line(self) -> str:
        """See `Stage.line`."""
        parts = " + ".join(a for group in self.fit.groups for a in group.address)
        return f"fit {parts}: {self.updates:,} updates on {_name(self.batch)}"

    def total(self) -> int:
        """Updates."""
        return self.updates

    def run(self, run: "Run") -> None:
        """Batch k is a pure function of (seed, k); what streams carry from batch to batch is saved with it."""
        if not self.updates:
            return
        fitter = run.fitter(self.fit)
        sampler = self.batch.build(run.store, seed=run.stage_seed)
        start = run.done.setdefault("updates", 0)
        run.progress.advance(start)
        run.agent.train()
        for k, batch in enumerate(prefetch(sampler, start, self.updates), start):
            before = None if sampler.starts_epoch(k) else run.carry.get("before")
            began = time.perf_counter()
            losses = fitter.apply(tree.to(batch, run.device), before)
            if losses.after is not None and not sampler.starts_epoch(k + 1):
                run.carry["before"] = losses.after
            run.done["updates"] = k + 1
            self._note(run, losses.metrics, k + 1, time.perf_counter() - began)
            run.tick()
        run.agent.eval()

    def _note(self, run: "Run", metrics: dict[str, Tensor], k: int, seconds: float) -> None:
        """Means over `log_every` updates; the running sums are part of the carry, so a resume adds on."""
        sums = run.carry.setdefault("sums", {})
        add_up(sums, metrics)
        shown: dict[str, float] = {}
        if k % self.log_every == 0 or k == self.updates:
            count = sums.pop("count")
            means = {name: value / count for name, value in sums.items()}
            means["guard/skipped"] = torch.tensor(run.guard.skipped)
            run.carry["sums"] = {}
            shown = run.record(k, means, timing={"time/update": seconds})
        run.progress.advance(1, updates=1, metrics=shown)


@dataclass(frozen=True, kw_only=True)
class Memorise(Stage):
    """Let the world store its memo beside every row (V-M-C: V's mu and logvar of every frame)."""

    size: int = 256  # rows encoded at once

    keeps: ClassVar = "episodes"

    def line(self) -> str:
        """See `Stage.line`."""
        return "store the world's memo beside every row"

    def total(self) -> int:
        """One tick; the bar shows rows."""
        return 1

    @torch.no_grad()
    def run(self, run: "Run") -> None:
        """Starts anew after a stop: the old memo stays in place until the new one is complete."""
        world, store = run.agent.world.eval(), run.collected

        def encode() -> Iterator[tuple[int, dict[str, np.ndarray]]]:
            fields = choose(store, ())
            for id, length in zip(store.ids.tolist(), store.lengths.tolist(), strict=True):
                pieces = []
                for begin in range(0, length, self.size):
                    end = min(begin + self.size, length)
                    stretch = Stretch(0, 0, id, begin, end)
                    rows = gather(store, fields, 1, end - begin, [stretch])
                    part = tree.to(tree.take(rows, 0), run.device)  # every row as a blank state's first
                    pieces.append(world.memo(world.observe(world.start(end - begin), part)))
                yield id, {k: v.half().cpu().numpy() for k, v in tree.concat(pieces).items()}
                run.progress.advance(0, env_steps=length)
                run.tick(save=False)

        store.attach(encode())
        run.progress.advance(1)


def stages(schedule: Any) -> list[tuple[str, Stage]]:
    """(name, stage) in order; repeated `schedule.rounds` times if there is such a field (names get "/2", ...)."""
    named = [(f.name, getattr(schedule, f.name)) for f in dataclasses.fields(schedule)]
    once = [(name, stage) for name, stage in named if isinstance(stage, Stage)]
    rounds = getattr(schedule, "rounds", 1)
    return [(name if r == 0 else f"{name}/{r + 1}", stage) for r in range(rounds) for name, stage in once]


def round_of(name: str) -> int:
    """The round that a stage of this name belongs to, from 1."""
    return int(name.partition("/")[2] or 1)


def add_up(sums: dict[str, Tensor], metrics: Mapping[str, Tensor]) -> None:
    """Add metrics to running sums, and 1 to their "count". In float64, which Apple's GPUs lack."""
    is_apple = any(value.device.type == "mps" for value in metrics.values())
    for name, value in {**metrics, "count": torch.ones(())}.items():
        wide = value.to(torch.float32 if is_apple else torch.float64)
        sums[name] = sums[name] + wide if name in sums else wide


def _name(config: Any) -> str:
    fields = ", ".join(f"{f.name}={getattr(config, f.name)}" for f in dataclasses.fields(config))
    return f"{type(config).__name__}({fields})"
