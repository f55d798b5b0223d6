"""The stage that ends a schedule: the agent and its rivals play the real environment on the same episodes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneiro.agent import Agent, Starts
from oneiro.evaluation.episodes import Scores, dream_scores, evaluate
from oneiro.evaluation.settings import frames_per_step, settings_of, task_of
from oneiro.training.evolve import Evolve
from oneiro.training.schedule import Episodes, Stage
from oneiro.training.starts import first_rows
from oneiro.training.state import random_state, set_random_state

if TYPE_CHECKING:
    from oneiro.training.recipe import Recipe
    from oneiro.training.run import Run, Trained

FOLDER = "scores"
SEED_OFFSET = 1_000_003  # evaluation never plays the episodes that were collected


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A policy to compare with."""

    name: str
    policy: Any  # config of a behaviour that needs no training
    env: Any = None  # its environment, None = the same (an i.i.d. policy may act at every tic, say)


@dataclass(frozen=True, kw_only=True)
class Evaluate(Stage):
    """Play episodes with the agent, in the real environment and in its dream, and with its rivals."""

    episodes: int = 100  # each
    rivals: tuple[Rival, ...] = ()
    with_rivals: bool = True  # also play the rivals
    env: Any = None  # the environment that scores; None = the one the agent was trained in
    dream: bool = True  # also dream as many episodes; needs a world that predicts reward and end
    explore: bool = False  # the agent samples its actions, as in training; False: the likeliest one

    @property
    def opponents(self) -> tuple[Rival, ...]:
        """The rivals that are played."""
        return self.rivals if self.with_rivals else ()

    def line(self) -> str:
        """See `Stage.line`."""
        others = "".join(f", {rival.name}" for rival in self.opponents)
        return f"play {self.episodes} episodes: agent{' (real and dreamed)' if self.dream else ''}{others}"

    def require(self, recipe: "Recipe") -> None:
        """See `Stage.require`."""
        for env in (self.env, *(rival.env for rival in self.opponents)):
            (env or self.env or recipe.env).require()

    def total(self) -> int:
        """Episodes of all policies."""
        return self.episodes * (1 + self.dream + len(self.opponents))

    def plays(self, round: int) -> list[Episodes]:
        """See `Stage.plays`."""
        others = [
            Episodes(count=self.episodes, policy=rival.policy, env=rival.env or self.env)
            for rival in self.opponents
        ]
        return [Episodes(count=self.episodes, env=self.env), *others]

    def run(self, run: "Run") -> None:
        """One file for each policy in the run folder's `scores`; those already there are not played again.

        A stop in the middle of a policy's episodes leaves at once; a resume plays them from the first.
        """

        def watch(steps: int, episodes: int) -> None:
            run.progress.advance(episodes, env_steps=steps, metrics={})
            run.tick(save=False)

        folder = run.folder.path / FOLDER
        finished = run.done.setdefault("finished", [])
        run.progress.advance(self.episodes * len(finished))
        jobs: list[tuple[str, Any]] = [(rival.name, rival) for rival in self.opponents]
        jobs += [("dream", None)] if self.dream else []
        jobs += [("real", None)]
        for name, rival in jobs:
            if name in finished:
                continue
            run.before_save = partial(
                set_random_state, random_state()
            )  # a stop in mid-policy: it is repeated
            if name == "dream":
                scores = score_dream(run, self.episodes)
                run.progress.advance(self.episodes, metrics={})
            else:
                behaviour = rival.policy.build(run.spaces) if rival else run.agent.behaviour
                env = (rival.env if rival else None) or self.env or run.recipe.env
                agent = Agent(run.agent.world, behaviour)
                scores = score_real(run, agent, env, self.episodes, name, explore=self.explore, watch=watch)
            scores.save(folder / f"{name.replace(' ', '_').replace(',', '')}.json")
            finished.append(name)
            run.before_save = None
            run.record(
                len(finished),
                {f"evaluate/{name}": scores.summary.mean, f"evaluate/{name}_std": scores.summary.std},
            )
            run.progress.advance(metrics={name: scores.summary.mean})
            run.tick()


def score_real(
    run: "Trained",
    agent: Agent,
    env_config: Any,
    episodes: int,
    name: str,
    seed: int = 0,
    *,
    explore: bool = False,
    watch: Callable[[int, int], None] | None = None,
) -> Scores:
    """Episodes of the real environment; every policy with the same seed meets the same ones.

    `explore`: actions are sampled. A policy that looks at nothing (random, a fixed plan) always explores. `watch`
    as in `evaluate`.
    """
    env = env_config.make()
    try:
        return evaluate(
            env,
            agent,
            episodes=episodes,
            seed=run.recipe.seed + SEED_OFFSET + seed,
            explore=explore or agent.behaviour.sees == "nothing",
            about={
                "policy": name,
                "env": env_config.describe(),
                "task": task_of(env_config),
                "settings": settings_of(env_config),
                "action_repeat": frames_per_step(env_config),
            },
            watch=watch,
        )
    finally:
        env.close()


def score_dream(run: "Trained", episodes: int, temperature: float | None = None, seed: int = 0) -> Scores:
    """As many dreamed episodes, at the temperature and horizon of the schedule's evolution."""
    stage = dream_settings(run)
    batch = first_rows(
        run.store, Starts(context=stage.starts.context, count=episodes), run.recipe.seed, run.device
    )
    carry = run.agent.settle(batch, stage.starts.context)
    chosen = stage.temperature if temperature is None else temperature
    scores = dream_scores(
        run.agent, carry, stage.horizon, chosen, episodes=episodes, seed=run.recipe.seed + SEED_OFFSET + seed
    )
    repeat = {"policy": "dream", "action_repeat": frames_per_step(run.recipe.env)}
    return replace(scores, protocol=scores.protocol | repeat)


def dream_settings(run: "Trained") -> Evolve:
    """The stage of the schedule that says how this agent dreams (temperature, horizon, starts)."""
    return next((stage for _, stage in run.stages if isinstance(stage, Evolve)), Evolve(temperature=1.0))


def load_scores(folder: Path) -> dict[str, Scores]:
    """All scores of a run, by policy."""
    return {path.stem: Scores.load(path) for path in sorted((folder / FOLDER).glob("*.json"))}
