"""`oneiro export` and `oneiro import`: agents as folders for a model hub, and weights that others released."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from oneiro.cli.options import command_line, parse
from oneiro.errors import OneiroError
from oneiro.recipes.exported import export
from oneiro.recipes.imported import import_diamond, import_exported
from oneiro.recipes.saved import open_run
from oneiro.training.run import Trained

PathArgument = Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True)
class Export:
    """Write the newest weights of a run as safetensors and JSON, with a model card, ready for a model hub."""

    run: PathArgument  # run folder
    folder: PathArgument  # new folder to write
    licence: str = "unknown"  # of the weights, as a hub names it: mit, apache-2.0, cc-by-4.0, ...
    recipe: str | None = None  # file.py:function, if the run was made by a recipe of your own
    json: bool = False  # machine-readable output


def export_command(arguments: Sequence[str]) -> None:
    """See `oneiro export --help`."""
    own = parse(
        Export, arguments, "export", "oneiro export runs/vmc-takecover-demo-0 takecover --licence mit"
    )
    folder = export(open_run(own.run, own.recipe), own.folder, own.licence)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    if own.json:
        print(json.dumps({"folder": str(folder), "files": files}))
        return
    print(f"exported to {folder}")
    for name, size in files.items():
        print(f"  {name:26} {size:>14,} bytes")


@dataclass(frozen=True)
class Import:
    """Make a run folder of an exported folder. `oneiro import diamond CHECKPOINT` takes DIAMOND's released weights.

    A world of recorded video, which cannot be played, brings the rows where its dreams begin along.
    """

    folder: PathArgument  # what `oneiro export` wrote
    run: Path | None = None  # run folder to make; default runs/NAME-OF-THE-FOLDER
    episodes: int = 4  # real episodes the agent plays for the replay, where dreams begin; 0 = none
    recipe: str | None = None  # file.py:function, if the run was made by a recipe of your own
    json: bool = False  # machine-readable output


@dataclass(frozen=True)
class ImportDiamond:
    """Make a run folder of weights that DIAMOND's authors released. Nothing but weights is read from the file."""

    checkpoint: PathArgument  # for example Breakout.pt
    game: str  # Atari game they were trained in, for example breakout
    run: Path | None = None  # run folder to make; default runs/diamond-GAME
    size: str = "paper"  # size of the networks; the released ones are "paper"
    episodes: int = 4  # real episodes the agent plays for the replay, where dreams begin; 0 = none
    json: bool = False  # machine-readable output


def import_command(arguments: Sequence[str]) -> None:
    """See `oneiro import --help`."""
    command = command_line("import", arguments)
    if arguments and arguments[0] == "diamond":
        example = "oneiro import diamond Breakout.pt --game breakout"
        own = parse(ImportDiamond, arguments[1:], "import diamond", example)
        path = own.run or Path("runs") / f"diamond-{own.game}"
        _require_count(own.episodes)
        run = import_diamond(own.checkpoint, own.game, path, command, size=own.size, episodes=own.episodes)
    else:
        own = parse(Import, arguments, "import", "oneiro import takecover --run runs/takecover")
        path = own.run or Path("runs") / own.folder.resolve().name
        _require_count(own.episodes)
        run = import_exported(own.folder, path, command, episodes=own.episodes, recipe=own.recipe)
    _print(run, own.json)


def _require_count(episodes: int) -> None:
    if episodes < 0:
        raise OneiroError(f"--episodes must not be negative, got {episodes}")


def _print(run: Trained, as_json: bool) -> None:
    count = sum(p.numel() for p in run.agent.parameters())
    if as_json:
        print(json.dumps({"run": str(run.folder.path), "parameters": count}))
    else:
        print(f"{run.folder.path}: {count:,} parameters; oneiro evaluate, dream and play take this folder")
