"""Verbs that take a run folder: `oneiro evaluate`, `dream`, `report`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from oneiro.cli.first_line import first_line
from oneiro.cli.options import parse
from oneiro.errors import OneiroError
from oneiro.evaluation.aggregate import normalise
from oneiro.evaluation.episodes import Scores
from oneiro.evaluation.published import Suite, lookup
from oneiro.evaluation.stage import FOLDER, Evaluate, dream_settings, load_scores, score_dream, score_real
from oneiro.recipes.saved import open_run
from oneiro.training.progress import Progress
from oneiro.training.run import Trained

RunArgument = Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True)
class EvaluateRun:
    """Play the real environment with a trained agent and print mean and 95 % interval."""

    run: RunArgument  # run folder
    episodes: int = 100  # how many
    seed: int = 0  # which episodes: the same seed gives every agent the same ones
    greedy: bool = False  # the likeliest action; default: as the recipe's evaluation does it
    sample: bool = False  # sampled actions, as in training
    save: bool = False  # keep the scores in the run folder, where report and compare read them
    dream: bool = False  # also dream as many episodes
    temperature: float | None = None  # of that dream; default: that of training
    recipe: str | None = None  # file.py:function, if the run was made by a recipe of your own
    json: bool = False  # machine-readable output


def evaluate_command(arguments: Sequence[str]) -> None:
    """See `oneiro evaluate --help`."""
    own = parse(
        EvaluateRun, arguments, "evaluate", "oneiro evaluate runs/vmc-takecover-demo-0 --episodes 100"
    )
    if own.episodes < 2:
        raise OneiroError(f"an interval needs at least 2 episodes, got --episodes {own.episodes}")
    if own.greedy and own.sample:
        raise OneiroError("--greedy and --sample exclude each other")
    run = open_run(own.run, own.recipe)
    with Progress(f"{own.episodes} episodes", run.recipe.runtime.device, own.run):
        stage = next((s for _, s in run.stages if isinstance(s, Evaluate)), Evaluate())
        env = stage.env or run.recipe.env
        explore = own.sample or (stage.explore and not own.greedy)
        scores = {"real": score_real(run, run.agent, env, own.episodes, "real", own.seed, explore=explore)}
        if own.dream:
            scores["dream"] = score_dream(run, own.episodes, own.temperature, own.seed)
    if own.save:
        for name, each in scores.items():
            each.save(own.run / FOLDER / f"{name}.json")
    if own.json:
        print(json.dumps({name: s.to_json() for name, s in scores.items()}))
    else:
        print_table(scores, str(own.run))


@dataclass(frozen=True)
class DreamRun:
    """Film of truth, dream and difference: some real rows, then the recorded actions in the dream."""

    run: RunArgument  # run folder
    context: int = 5  # real rows seen before the dream begins
    horizon: int = 60  # dreamed steps
    episodes: int = 4  # how many are averaged; two are filmed
    temperature: float = 1.0  # of the dream
    out: Path | None = None  # film (.webp or .gif); default RUN/video/open_loop.webp
    recipe: str | None = None  # file.py:function, if the run was made by a recipe of your own
    json: bool = False  # machine-readable output


def dream_command(arguments: Sequence[str]) -> None:
    """See `oneiro dream --help`."""
    own = parse(DreamRun, arguments, "dream", "oneiro dream runs/vmc-takecover-demo-0 --horizon 100")
    if own.horizon < 1 or own.context < 1:
        raise OneiroError(f"context and horizon must be at least 1, got {own.context} and {own.horizon}")
    from oneiro.evaluation.film import open_loop_film
    from oneiro.evaluation.open_loop import open_loop

    run = open_run(own.run, own.recipe)
    first_line(f"dreaming with {own.run}", run.recipe.runtime.device)
    needed = own.context + own.horizon
    long = run.store.ids[run.store.lengths >= needed][: own.episodes]
    if not len(long):
        raise OneiroError(f"no stored episode has {needed} rows; lower --horizon or --context")
    episodes = [run.store.read(int(i), 0, needed) for i in long]
    result = open_loop(
        run.agent.world, episodes, context=own.context, horizon=own.horizon, temperature=own.temperature
    )
    path = own.out or run.folder.video / "open_loop.webp"
    path.parent.mkdir(parents=True, exist_ok=True)
    open_loop_film(result).save(path)
    curves = result.curves()
    if own.json:
        print(json.dumps({"film": str(path), **curves}))
        return
    print(f"film: {path}")
    for t in sorted({0, 1, 5, 10, 20, own.horizon} & set(range(own.horizon + 1))):
        print(
            f"step {t:4}: PSNR {curves['psnr'][t]:5.1f} dB (last real frame held: {curves['held_psnr'][t]:5.1f})"
        )


@dataclass(frozen=True)
class ReportRun:
    """Write report.html of a run: scores, learning curves, films, temperature."""

    run: RunArgument  # run folder
    recipe: str | None = None  # file.py:function, if the run was made by a recipe of your own
    json: bool = False  # machine-readable output


def report_command(arguments: Sequence[str]) -> None:
    """See `oneiro report --help`."""
    own = parse(ReportRun, arguments, "report", "oneiro report runs/vmc-takecover-demo-0")
    run = open_run(own.run, own.recipe)
    first_line(f"writing the report of {own.run}", run.recipe.runtime.device)
    path = write_run_report(run)
    print(json.dumps({"report": str(path)}) if own.json else f"report: {path}")


def print_scores(path: Path) -> None:
    """The table at the end of a training."""
    scores = load_scores(path)
    if scores:
        print_table(scores, str(path))


def print_table(scores: dict[str, Scores], title: str) -> None:
    """One line a policy: mean, standard deviation, 95 % interval; below the protocol and what was published.

    Where a human and a random score of the task are known, the mean is given human-normalised too.
    """
    from rich.console import Console
    from rich.table import Table

    found = {str(score.protocol.get("task", "")) for score in scores.values()} - {""}
    known = {task: place for task in sorted(found) if (place := lookup(task))}
    scaled = any(suite.is_normalised for suite, _ in known.values())
    table = Table(title=title, title_justify="left")
    for name in ("policy", "mean", *["human-norm."] * scaled, "std", "95 % interval", "n", "decision"):
        table.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    protocols: dict[str, list[str]] = {}
    for name, score in sorted(scores.items(), key=lambda item: item[1].summary.mean):
        s, facts = score.summary, score.protocol
        name = str(facts.get("policy", name))
        interval = f"{s.show(s.low)} to {s.show(s.high)}"
        frames = facts.get("action_repeat")
        decision = "" if frames is None else f"{frames} frame" + "s" * (frames > 1)
        suite, task = known.get(str(facts.get("task")), (None, ""))
        share = suite and suite.is_normalised and normalise(s.mean, suite.random[task], suite.human[task])
        norm = ["" if share is None or share is False else f"{share:.3f}"] * scaled
        table.add_row(name, s.show(s.mean), *norm, s.show(s.std), interval, str(s.n), decision)
        crashed = f", {score.crashed} crashed episodes left out" if score.crashed else ""
        protocols.setdefault(_protocol(facts) + crashed, []).append(name)
    console = Console()
    console.print(table)
    for protocol, names in protocols.items():
        console.print(f"{'; '.join(names)}: {protocol}", markup=False, highlight=False, soft_wrap=True)
    for suite, task in known.values():
        line = _published(suite, task)
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _published(suite: Suite, task: str) -> str:
    """Every published mean on a task, in one line."""
    means = {name: method.mean(task) for name, method in suite.methods.items()}
    shown = {"random": suite.random.get(task), "human": suite.human.get(task), **means}
    parts = [f"{name} {score:,.5g}" for name, score in shown.items() if score is not None]
    return f"published on {suite.name}/{task} ({suite.frames:,} frames): {', '.join(parts)}"


def _protocol(facts: dict[str, Any]) -> str:
    """What was played, in one line."""
    if facts.get("kind") == "dream":
        return f"its own dream, temperature {facts['temperature']:g}, at most {facts['horizon']:,} decisions"
    actions = ", actions sampled" if facts.get("explore") and facts.get("policy") == "real" else ""
    return f"{facts.get('env', '?')}{actions}"


def write_run_report(run: Trained) -> Path:
    """`report.html` of a run."""
    from oneiro.evaluation.run_report import write_report_of

    return write_report_of(run, dream_settings(run))
