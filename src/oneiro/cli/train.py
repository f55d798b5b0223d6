"""`oneiro train`."""

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oneiro.cli.options import command_line, default_run, parse_with_recipe, size_of

FREE = (
    *("values.log", "values.checkpoint", "values.runtime", "values.schedule.online.actors"),
    *(f"values.env.{name}" for name in ("num", "workers", "processes", "timeout", "max_crashes")),
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
    origin: Path | None = None  # another run to begin with: its experience and its world, both only read
    origin_stage: str = "evolve"  # with --origin: the first stage that is done here
    origin_parts: tuple[str, ...] = ()  # with --origin: parts of its world to take; default all


def train_command(arguments: Sequence[str]) -> int:
    """See `oneiro train --help`."""
    entry, recipe, own = parse_with_recipe(Train, arguments, "train", EXAMPLE)
    from oneiro.training.parallel import launched
    from oneiro.training.progress import Progress
    from oneiro.training.recipe import to_json
    from oneiro.training.run import Run, Stopped
    from oneiro.training.run_folder import RunFolder
    from oneiro.training.signals import Stop

    path = own.run or default_run(entry, size_of(arguments), recipe.seed)
    record = {"recipe": arguments[0], "size": size_of(arguments) or entry.sizes[0], "values": to_json(recipe)}
    defaults = {"values": to_json(entry.build(size_of(arguments)))}
    if own.origin:
        origin = {"run": str(own.origin), "stage": own.origin_stage, "parts": list(own.origin_parts)}
        record["origin"] = origin
    recipe.env.require()
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
            from oneiro.cli.runs import print_scores, write_run_report

            print_scores(path)
            if own.report:
                print(f"report: {write_run_report(run)}")
    return 0
