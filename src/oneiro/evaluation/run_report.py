"""The report of a run folder: films its agent, lets it dream at other temperatures, and gathers what was logged."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneiro.agent import Starts
from oneiro.errors import OneiroError
from oneiro.evaluation.episodes import Scores, dream_scores
from oneiro.evaluation.film import (
    Film,
    Style,
    agent_in_dream,
    agent_in_env,
    dream_at_temperatures,
    open_loop_film,
)
from oneiro.evaluation.learning_section import Learning, learning_of
from oneiro.evaluation.open_loop import OpenLoopResult, open_loop
from oneiro.evaluation.report import Clip, Line, ReportData, write_report
from oneiro.evaluation.stage import Evaluate, load_scores
from oneiro.training.evolve import Evolve
from oneiro.training.fit import parameter_counts
from oneiro.training.log import read_metrics
from oneiro.training.starts import first_rows
from oneiro.types import Carry

if TYPE_CHECKING:
    from oneiro.training.run import Trained

logger = logging.getLogger("oneiro")

TEMPERATURES = (0.1, 0.5, 1.0, 1.15, 1.3)
FILMED_TEMPERATURES = (0.1, 1.0, 1.3)
DREAMS = 100
"""Dreams per temperature."""
CONTEXT, HORIZON, EPISODES = 5, 60, 10
"""Of the open-loop comparison."""


def write_report_of(run: "Trained", dream: Evolve) -> Path:
    """Write `report.html` and the films of `video/`; what cannot be made is named on the page."""
    stage = next((s for _, s in run.stages if isinstance(s, Evaluate)), Evaluate())
    scores = load_scores(run.folder.path)
    about = (stage.env or run.recipe.env).describe()
    unit = about.rpartition("score = ")[2] if "score = " in about else "score"
    unit = unit if unit[:1].isalpha() else "score"  # and not a formula
    names = ("left", "none", "right") if run.spaces.action.dim == 1 else ()
    style = Style(names=names, unit=unit.split(" ")[0])
    loop = _attempt("open-loop comparison", lambda: _open_loop(run))
    starts = _attempt("dreams", lambda: _starts(run, dream))
    metrics = read_metrics(run.folder.metrics) if run.folder.metrics.exists() else []
    launch = run.folder.launches[-1] if run.folder.launches else {}
    in_dream = dream.where == "dream"
    learning = learning_of(str(run.folder.recipe.get("recipe", "")), run.recipe.env, metrics, scores)
    return write_report(
        run.folder.path,
        ReportData(
            title=f"{about.split(',')[0]}, {'learned in a dream' if in_dream else 'seen through a world model'}",
            intro=_online_intro(run, about.split(",")[0], learning)
            if learning
            else _intro(run, about.split(",")[0], in_dream),
            learning=learning,
            unit=unit,
            lines=lines(scores),
            clips=_clips(run, dream, stage, scores, starts, loop, style),
            open_loop=loop.curves() if loop else None,
            metrics=metrics,
            practice="in the dream" if in_dream else "in the real environment",
            temperature=_sweep(run, dream, starts) if starts and stage.dream else {},
            temperature_trained=dream.temperature if in_dream else None,
            temperature_clip=_temperature_clip(run, dream, starts, style),
            facts=facts(launch, about, run.recipe.seed, str(run.device)),
            seconds=stage_seconds(metrics, [name for name, _ in run.stages]),
            parameters=parameter_counts(run.agent),
            recipe=run.folder.recipe,
        ),
    )


def lines(scores: dict[str, Scores]) -> list[Line]:
    """The table's rows: rivals from the lowest mean up, then the dream, then the real environment."""
    rivals = [s for name, s in scores.items() if name not in ("dream", "real")]
    found = []
    for each in sorted(rivals, key=lambda s: s.summary.mean):
        name = str(each.protocol.get("policy", "rival"))
        title = "Random policy" + name.removeprefix("random") if name.startswith("random") else name
        found.append(Line(name=title, scores=each.score, tone="chance", note=_decision(each)))
    if "dream" in scores:
        tau = scores["dream"].protocol.get("temperature")
        found.append(
            Line(name="In the dream", scores=scores["dream"].score, tone="dream", note=f"temperature {tau:g}")
        )
    if "real" in scores:
        real = scores["real"]
        found.append(Line(name="In the real game", scores=real.score, tone="real", note=_decision(real)))
    return found


def facts(launch: dict[str, Any], about: str, seed: int, device: str) -> dict[str, str]:
    """What another person needs to repeat the run."""
    versions = [
        f"{p} {launch[p]}" for p in ("oneiro", "python", "torch", "numpy", "gymnasium") if p in launch
    ]
    found = {
        "Command": str(launch.get("command", "")),
        "Seed": str(seed),
        "Protocol": about,
        "Hardware": f"{launch.get('cpus', '?')} CPU cores, device {device}, {launch.get('platform', '')}",
        "Software": ", ".join(versions),
        "Started": str(launch.get("time", "")),
    }
    return {name: text for name, text in found.items() if text}


def stage_seconds(metrics: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """Seconds of training by stage, from the last line of each; a stage without lines counts with the next."""
    last = {record["stage"]: float(record["time"]) for record in metrics if "stage" in record}
    seconds: dict[str, float] = {}
    before, silent = 0.0, []
    for name in names:
        silent.append(name)
        if name in last:
            seconds[" + ".join(silent)] = max(last[name] - before, 0.0)
            before, silent = last[name], []
    return seconds


def _intro(run: "Trained", game: str, in_dream: bool) -> str:
    watched = f"{len(run.store):,} episodes" if len(run.store) else "episodes"
    first = f"A world model watched {watched} of {game} and learned to imagine what comes next."
    weights = f"A controller of {parameter_counts(run.agent)['behaviour']:,} weights was then trained"
    if not in_dream:
        return f"{first} {weights} in the real environment, on what the model sees and remembers."
    if any("/" in name for name, _ in run.stages):
        return f"{first} {weights} inside that imagination, its dream, and played more games to learn from."
    return (
        f"{first} {weights} only inside that imagination, its dream, and met the real game for the first time "
        "in the scores below."
    )


def _online_intro(run: "Trained", game: str, learning: Learning) -> str:
    return (
        f"While it played {len(learning.episodes):,} episodes of {game}, a world model learned to imagine what comes "
        f"next, and an actor and its critic ({parameter_counts(run.agent)['behaviour']:,} weights) learned in what was "
        "imagined. All began with nothing."
    )


def _clips(
    run: "Trained",
    dream: Evolve,
    stage: Evaluate,
    scores: dict[str, Scores],
    starts: Carry | None,
    loop: OpenLoopResult | None,
    style: Style,
) -> list[Clip]:
    video = run.folder.video
    real = scores.get("real")
    which = "the episode nearest the median score" if real else "one episode"

    def play() -> Film:
        env = (stage.env or run.recipe.env).make(1)
        try:
            seed = int(real.protocol["seed"]) if real else run.recipe.seed
            explore = bool(real.protocol.get("explore", stage.explore)) if real else stage.explore
            id = real.typical() if real else 0
            return agent_in_env(env, run.agent, seed, id=id, explore=explore, style=style)
        finally:
            env.close()

    imagine = starts and (
        lambda: agent_in_dream(run.agent, starts, dream.horizon, dream.temperature, style=style)
    )
    compare = loop and (lambda: open_loop_film(loop, style=style))
    return [
        Clip(
            title="In the real game.",
            caption=f"Left, {which}; centre, what the model keeps of each picture; right, what it had expected one "
            "step before. The bar is its probability that the game goes on.",
            film=_film(video / "real.webp", play),
        ),
        Clip(
            title="In its own dream.",
            caption=f"Three dreams at temperature {dream.temperature:g}. No game is running: from the first frame "
            "on everything is imagined, and the same controller plays.",
            film=_film(video / "dream.webp", imagine),
        ),
        Clip(
            title="Truth, dream, difference.",
            caption=f"The model saw {CONTEXT} real rows; then it was given only the recorded actions.",
            film=_film(video / "open_loop.webp", compare),
        ),
    ]


def _temperature_clip(run: "Trained", dream: Evolve, starts: Carry | None, style: Style) -> Clip:
    make = starts and (
        lambda: dream_at_temperatures(run.agent, starts, dream.horizon, FILMED_TEMPERATURES, style=style)
    )
    return Clip(
        title="The same start at three temperatures.",
        caption="One controller, one world model, one first frame.",
        film=_film(run.folder.video / "temperature.webp", make),
    )


def _sweep(run: "Trained", dream: Evolve, starts: Carry) -> dict[float, Sequence[float]]:
    every = sorted({*TEMPERATURES, dream.temperature})
    return {
        tau: dream_scores(run.agent, starts, dream.horizon, tau, episodes=DREAMS, seed=run.recipe.seed).score
        for tau in every
    }


def _open_loop(run: "Trained") -> OpenLoopResult:
    needed = CONTEXT + HORIZON
    ids = run.store.ids[run.store.lengths >= needed][-EPISODES:]
    episodes = [run.store.read(int(i), 0, needed, fields=list(run.spaces.obs)) for i in ids]
    return open_loop(run.agent.world, episodes, context=CONTEXT, horizon=HORIZON, seed=run.recipe.seed)


def _starts(run: "Trained", dream: Evolve) -> Carry:
    starts = Starts(context=dream.starts.context, count=DREAMS)
    return run.agent.settle(first_rows(run.store, starts, run.recipe.seed, run.device), starts.context)


def _film(path: Path, make: Callable[[], Film] | None) -> Path | None:
    film = _attempt(path.name, make) if make else None
    return film.save(path) if film else None


def _attempt(what: str, make: Callable[[], Any]) -> Any:
    """None, with a warning in the log, if the user's data or installation does not allow it."""
    try:
        return make()
    except OneiroError as error:
        logger.warning("the report goes without %s: %s", what, error)
        return None


def _decision(scores: Scores) -> str:
    """The part of the protocol that says how often a decision is made."""
    return next((p.strip() for p in str(scores.protocol.get("env", "")).split(",") if "decision" in p), "")
