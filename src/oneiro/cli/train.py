"""`oneiro train`."""

import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneiro.cli.options import command_line, default_run, parse_with_recipe, size_of
from oneiro.envs.config import HOW_IT_RUNS
from oneiro.errors import OneiroError

if TYPE_CHECKING:
    from oneiro.training.run import Run

FREE = (
    *("values.log", "values.checkpoint", "values.runtime", "values.schedule.online.actors"),
    *(f"values.env.{name}" for name in HOW_IT_RUNS),
    *("values.data.ram", "values.data.capacity"),
)
"""What may differ from the run that is resumed: what error messages tell the user to change, too."""
EXAMPLE = "oneiro train vmc-takecover --size demo --seed 1 --schedule.evolve.generations 100"


@dataclass(frozen=True)
class Train:
    """Train a recipe. The same command again resumes where it stopped."""

    run: Path | None = None  # run folder; default runs/RECIPE-SIZE-SEED
    report: bool = False  # write report.html at the end
    quiet: bool = False  # no progress display
    origin: Path | None = (
        None  # what to begin with: another run (experience and world), or collected episodes
    )
    origin_stage: str = (
        ""  # with --origin: the first stage done here; default evolve, or what follows collecting
    )
    origin_parts: tuple[str, ...] = ()  # with a run as --origin: parts of its world to take; default all
    json: bool = False  # machine-readable scores


def train_command(arguments: Sequence[str]) -> int:
    """See `oneiro train --help`."""
    entry, recipe, own = parse_with_recipe(Train, arguments, "train", EXAMPLE)
    from oneiro.training.parallel import launched
    from oneiro.training.progress import Progress
    from oneiro.training.recipe import to_json
    from oneiro.training.run import Run, Stopped
    from oneiro.training.run_folder import RunFolder
    from oneiro.training.schedule import require
    from oneiro.training.signals import Stop

    path = own.run or default_run(entry, size_of(arguments), recipe.seed)
    record = {"recipe": arguments[0], "size": size_of(arguments) or entry.sizes[0], "values": to_json(recipe)}
    defaults = {"values": to_json(entry.build(size_of(arguments)))}
    if origin := _origin(own):
        record["origin"] = origin
    require(recipe)
    with Stop() as stop, launched() as ranks:
        title, device = f"{entry.name} ({record['size']})", recipe.runtime.device
        folder: RunFolder | None = None
        if ranks.is_first:
            folder = RunFolder.open(path, record, command_line("train", arguments), FREE, defaults)
        ranks.wait()
        with (
            folder or RunFolder.read(path) as folder,
            Progress(title, device, path, quiet=own.quiet or not ranks.is_first) as progress,
        ):
            try:
                with Run(recipe, folder, progress, stop, ranks) as run:
                    run.train()
            except Stopped:
                if ranks.is_first:
                    print(f"stopped and saved in {path}; the same command goes on from here", file=sys.stderr)
                return 128 + (stop.signal or signal.SIGINT)
            if not ranks.is_first:
                return 0
            _print_result(own, run)
    return 0


def _origin(own: Train) -> dict[str, Any] | None:
    """What the run begins with, for the record."""
    from oneiro.training.given import is_collection

    if own.origin is None:
        if own.origin_stage or own.origin_parts:
            raise OneiroError(
                "--origin-stage and --origin-parts say what is taken from --origin; name a run folder or a folder of "
                "episodes with it, or leave them out"
            )
        return None
    if not is_collection(own.origin):
        stage = own.origin_stage or "evolve"
        return {"run": str(own.origin), "stage": stage, "parts": list(own.origin_parts)}
    if own.origin_parts:
        raise OneiroError(f"{own.origin} holds episodes and no world; leave out --origin-parts")
    return {"collection": str(own.origin), "stage": own.origin_stage}


def _print_result(own: Train, run: "Run") -> None:
    """Scores and the report, after the last stage."""
    from oneiro.cli.runs import print_scores, write_run_report
    from oneiro.evaluation.stage import load_scores

    path = run.folder.path
    report = write_run_report(run) if own.report else None
    if own.json:
        scores = {name: score.to_json() for name, score in load_scores(path).items()}
        print(json.dumps({"run": str(path), "scores": scores, "report": report and str(report)}))
        return
    print_scores(path)
    if report:
        print(f"report: {report}")
