"""What one run folder contributes to a comparison: task, settings, scores and training episodes."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oneiro.evaluation.episodes import Scores
from oneiro.evaluation.settings import frames_per_step, settings_of, steps_of, task_of
from oneiro.evaluation.stage import Evaluate, load_scores
from oneiro.evaluation.training_episodes import TrainingEpisodes, read_training_episodes
from oneiro.training.log import read_metrics
from oneiro.training.recipe import Recipe, to_json
from oneiro.training.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One run."""

    path: Path
    recipe: str
    """Name and size, for example "dreamerv3-atari100k 12m"."""
    seed: int
    values: Mapping[str, Any]
    """Every value that makes the system: world, behaviour, and the stages but those that only evaluate."""
    task: str
    """See `settings.task_of`."""
    settings: Mapping[str, Any]
    """Of the environment of training, see `settings.settings_of`."""
    budget: int
    """Frames that the run is to see; 0 = not said."""
    frames: float
    """Frames it has seen."""
    episodes: TrainingEpisodes
    evaluation: Scores | None = None
    random: Scores | None = None
    """Of a random policy, if it was played."""
    seconds: float = 0.0
    """Of training so far."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The newest launch: versions, machine, command."""

    @property
    def evaluation_settings(self) -> dict[str, Any]:
        """What decides the meaning of the evaluation's scores."""
        assert self.evaluation is not None
        protocol = self.evaluation.protocol
        settings = protocol.get("settings", {"env": protocol.get("env")})
        return {**settings, "actions_are": "sampled" if protocol.get("explore") else "greedy"}


def read_result(path: Path, recipe: Recipe) -> RunResult:
    """The folder's files only: nothing is loaded, played or written."""
    folder = RunFolder.read(path)
    events = read_metrics(folder.metrics) if folder.metrics.exists() else []
    scores = load_scores(folder.path)
    frames = frames_per_step(recipe.env)
    online = {event["stage"] for event in events if "online/updates" in event or "episode/score" in event}
    return RunResult(
        path=path,
        recipe=f"{folder.recipe['recipe'].rpartition(':')[2]} {folder.recipe['size']}",
        seed=recipe.seed,
        values=_values(recipe),
        task=task_of(recipe.env),
        settings=settings_of(recipe.env),
        budget=frames * steps_of(recipe.schedule),
        frames=frames * max((float(e["step"]) for e in events if e["stage"] in online), default=0.0),
        episodes=read_training_episodes(events, frames),
        evaluation=scores.get("real"),
        random=scores.get("random"),
        seconds=float(events[-1]["time"]) if events else 0.0,
        facts=folder.launches[-1] if folder.launches else {},
    )


def _values(recipe: Recipe) -> dict[str, Any]:
    schedule = {
        field.name: to_json(stage)
        for field in dataclasses.fields(recipe.schedule)
        if not isinstance(stage := getattr(recipe.schedule, field.name), Evaluate)
    }
    return {"world": to_json(recipe.world), "behaviour": to_json(recipe.behaviour), "schedule": schedule}
