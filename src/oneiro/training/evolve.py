"""The stage that evolves a behaviour: its weights are scored by rollouts in the dream or in the real environment.

All rollouts of all candidates of a generation are one batch; each row carries the weights of its candidate.
"""

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from oneiro import tree
from oneiro.agent import Agent, Starts
from oneiro.behaviours.population import Population
from oneiro.data.collect import play
from oneiro.dreaming import dream_score
from oneiro.errors import OneiroError
from oneiro.training.cma_es import CMA, Evolution, Seeds, draws, mean_scores, require_cma
from oneiro.training.schedule import Episodes, Stage
from oneiro.training.starts import first_rows
from oneiro.training.state import random_state, set_random_state
from oneiro.types import Carry, TimeStep

if TYPE_CHECKING:
    from oneiro.training.recipe import Recipe
    from oneiro.training.run import Run


@dataclass(frozen=True, kw_only=True)
class Evolve(Stage):
    """CMA-ES on the weights of the behaviour."""

    where: Literal["dream", "env"] = "dream"  # where candidates are scored
    cma: CMA = field(default_factory=CMA)
    generations: int = 1800
    episodes: int = 16  # rollouts per candidate, whose mean is its score
    temperature: float = 1.15  # of the dream
    horizon: int = 2100  # steps after which a dream is cut off
    starts: Starts = field(default_factory=Starts)  # where dreams begin: stored first rows
    seeds: Seeds = "common"  # which rollouts share random numbers; the released code has "pairs"
    test_every: int = 25  # generations between tests of the mean; 0 = never
    test_episodes: int = 1024  # rollouts of such a test
    result: Literal["last", "best"] = "last"  # the mean at the end, or the mean that tested best

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"horizon must be at least 1 step, got {self.horizon}")
        if self.result == "best" and not self.test_every:
            raise ValueError("result 'best' needs tests: set test_every to 25, say")

    def line(self) -> str:
        """See `Stage.line`."""
        place = (
            f"the dream (temperature {self.temperature:g})" if self.where == "dream" else "the environment"
        )
        return (
            f"evolve the behaviour in {place}: {self.generations:,} generations of {self.cma.population} x "
            f"{self.episodes} rollouts"
        )

    def require(self, recipe: "Recipe") -> None:
        """See `Stage.require`."""
        if self.generations:
            require_cma()

    def total(self) -> int:
        """Generations."""
        return self.generations

    def rollouts(self) -> int:
        """Of all generations and of the tests between them."""
        tests = self.generations // self.test_every if self.test_every else 0
        return self.generations * self.cma.population * self.episodes + tests * self.test_episodes

    def plays(self, round: int) -> list[Episodes]:
        """See `Stage.plays`."""
        return [Episodes(count=self.rollouts(), candidates=True)] if self.where == "env" else []

    def run(self, run: "Run") -> None:
        """History of scores and best mean are saved; the search distribution is rebuilt from them."""
        if not self.generations:
            return
        agent, done = run.agent.eval(), run.done
        start = run.carry.setdefault("start", parameters_to_vector(agent.behaviour.parameters()).detach())
        evolution = Evolution(self.cma, start, done.get("history"), seed=run.stage_seed)
        if "mean" in run.carry and not torch.allclose(
            run.carry["mean"], evolution.mean.to(run.device), atol=1e-5
        ):
            raise OneiroError(
                "the evolution cannot be continued: this version of cma or NumPy draws other numbers than the "
                "one that began it; install the versions named in recipe.json, or begin a new run"
            )
        run.progress.advance(len(evolution.history))
        rollouts = DreamRollouts(self, run) if self.where == "dream" else EnvRollouts(self, run)
        with rollouts:
            for generation in range(len(evolution.history), self.generations):
                began, random = time.perf_counter(), random_state()
                # A stop during the rollouts or the test: the generation is repeated, with the same random numbers.
                run.before_save = partial(set_random_state, random)
                weights = evolution.ask().to(run.device)
                rows = draws(len(weights), self.episodes, self.seeds)
                returns = rollouts(weights.repeat_interleave(self.episodes, 0), rows, generation)
                scores = mean_scores(returns, len(weights))
                evolution.tell(scores)
                mean = evolution.mean.to(run.device)
                metrics = {
                    "evolve/mean": float(np.mean(scores)),
                    "evolve/best": max(scores),
                    "evolve/sigma": evolution.sigma,
                }
                if self.test_every and (generation + 1) % self.test_every == 0:
                    metrics["evolve/test"] = self._test(run, rollouts, mean, generation)
                metrics |= rollouts.report()
                done["history"], run.carry["mean"], run.before_save = list(evolution.history), mean, None
                shown = run.record(
                    generation + 1, metrics, timing={"evolve/seconds": time.perf_counter() - began}
                )
                run.progress.advance(1, updates=1, metrics=shown)
                run.tick()
        chosen = run.carry.get("best", run.carry["mean"]) if self.result == "best" else run.carry["mean"]
        vector_to_parameters(chosen.to(run.device), agent.behaviour.parameters())

    def _test(
        self, run: "Run", rollouts: "DreamRollouts | EnvRollouts", mean: Tensor, generation: int
    ) -> float:
        """Mean return of the distribution's mean [n]; the best so far is kept."""
        rows = torch.arange(self.test_episodes)
        score = float(rollouts(mean.expand(len(rows), -1), rows, -1 - generation).mean())
        if score > run.done.get("best_score", -float("inf")):
            run.done["best_score"] = score
            run.carry["best"] = mean.clone()
        return score


class DreamRollouts:
    """Returns of dreams that begin at stored first rows."""

    def __init__(self, stage: Evolve, run: "Run") -> None:
        self.stage, self.agent = stage, run.agent
        self.starts: TimeStep = first_rows(run.store, stage.starts, run.stage_seed, run.device)
        self.population = Population(run.agent.behaviour)
        self.settler = Agent(run.agent.world, self.population)
        self._require_reward()

    def __enter__(self) -> "DreamRollouts":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __call__(self, weights: Tensor, draw: Tensor, generation: int) -> Tensor:
        """Weights [N, n], draw [N] -> return [N]. Rows of one draw share start, noise and fate."""
        num_draws = int(draw.max()) + 1
        picked = torch.randint(tree.size(self.starts.is_first), (num_draws,))
        begin = self.settler.settle(
            tree.take(self.starts, picked.to(weights.device)), self.stage.starts.context
        )
        draw = draw.to(weights.device)
        state = tree.take(begin.state, draw)
        if "draw" in state:
            state["draw"] = draw
        elif self.stage.seeds != "independent":
            raise OneiroError(
                "this world cannot share random numbers between rows; set the stage's seeds to 'independent'"
            )
        carry = Carry(state=state, memory=self.population.seat(weights))
        score, _ = dream_score(
            self.agent.world,
            self.population,
            carry,
            self.stage.horizon,
            temperature=self.stage.temperature,
        )
        return score

    def report(self) -> dict[str, float]:
        """What else to log of a generation: nothing."""
        return {}

    @torch.no_grad()
    def _require_reward(self) -> None:
        """A world that predicts none would give every candidate the score 0."""
        world, random = self.agent.world, random_state()
        action = torch.zeros(1, world.spaces.action.dim, device=world.device)
        reward = world.step(world.start(1), action).reward
        set_random_state(random)
        if reward is None:
            raise OneiroError(
                f"{type(world).__name__} predicts no reward here, so every dream would score 0 and nothing could be "
                "selected. Let the world predict a reward (World Models: world.step_reward, with "
                "world.predicts_end, so that it counts the steps survived), or evolve in the environment (where 'env')"
            )


class EnvRollouts:
    """Returns of real episodes; a draw is an episode's seed, new in every generation.

    An episode that a dying worker cut short has no score: it is played again. The environment itself gives up
    after `max_crashes` in a row.
    """

    def __init__(self, stage: Evolve, run: "Run") -> None:
        self.stage, self.run = stage, run
        self.population = Population(run.agent.behaviour)
        self.agent = Agent(run.agent.world, self.population).eval()
        self.crashed = 0

    def __enter__(self) -> "EnvRollouts":
        self.opened = self.run.env()
        self.env = self.opened.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.opened.__exit__(*error)  # type: ignore[arg-type]

    def __call__(self, weights: Tensor, draw: Tensor, generation: int) -> Tensor:
        """As in the dream."""
        seed = int(np.random.SeedSequence([self.run.stage_seed, generation + (1 << 32)]).generate_state(1)[0])
        returns = torch.zeros(len(weights))
        left = list(range(len(weights)))
        while left:
            crashed = []
            episodes = play(
                self.env,
                self.agent,
                left,
                seed=seed,
                seed_ids=draw[left].tolist(),
                record=False,
                memory=lambda ids: self.population.seat(weights[ids.to(weights.device)]),
                on_step=lambda n: self.run.progress.advance(0, env_steps=n),
            )
            for episode in episodes:
                if episode.info["crashed"]:
                    crashed.append(episode.id)
                returns[episode.id] = float(episode.info["score"])
                self.run.tick(save=False)
            self.crashed += len(crashed)
            left = sorted(crashed)
        return returns

    def report(self) -> dict[str, float]:
        """Episodes that crashed since the last report."""
        crashed, self.crashed = self.crashed, 0
        return {"evolve/crashed": float(crashed)}
