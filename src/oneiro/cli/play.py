"""`oneiro play`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from oneiro.cli.first_line import first_line
from oneiro.cli.options import parse
from oneiro.errors import OneiroError
from oneiro.recipes.saved import open_run

EXAMPLE = "oneiro play runs/vmc-takecover-demo-0"


@dataclass(frozen=True)
class Play:
    """Open a page where a person plays in the dream of a run, or in the dreams of two runs by the same actions.

    Only this machine can reach the page, unless --host says otherwise; then --token is needed. Nothing is encrypted.
    """

    run: Annotated[Path, tyro.conf.Positional]  # run folder
    run2: Annotated[Path | None, tyro.conf.Positional] = None  # another one with the same actions
    port: int = 8765  # 0 = any that is free
    host: str = "127.0.0.1"  # address to listen on; 0.0.0.0 = all of this machine
    token: str = ""  # what players have to know; the printed address contains it
    names: tuple[str, ...] = ()  # further names under which this machine may be reached
    sessions: int = 8  # people who may play at the same time
    games: int = 2  # real games that may run beside dreams at the same time; 0 = none
    memory: int = 64  # MiB of frames and states kept for each of them
    idle: float = 600.0  # seconds without a message after which a session ends
    length: float = 14_400.0  # seconds a session lasts at most
    recipe: str | None = None  # file.py:function, if the run was made by a recipe of your own
    recipe2: str | None = None  # the same of the other run


def play_command(arguments: Sequence[str]) -> None:
    """See `oneiro play --help`."""
    own = parse(Play, arguments, "play", EXAMPLE)
    from oneiro.play.doors import Doors
    from oneiro.play.limits import Limits
    from oneiro.play.played_run import PlayedRun
    from oneiro.play.server import require, serve

    if not 0 <= own.port < 65536:
        raise OneiroError(f"--port must lie in 0 to 65535, got {own.port}")
    require()
    doors = Doors(host=own.host, token=own.token, names=own.names)
    limits = Limits(
        sessions=own.sessions,
        environments=own.games,
        history_mib=own.memory,
        idle_seconds=own.idle,
        session_seconds=own.length,
    )
    runs = ((own.run, own.recipe), (own.run2, own.recipe2))
    opened = [open_run(path, recipe) for path, recipe in runs if path is not None]
    names = [run.folder.path.resolve().name for run in opened]
    first_line(f"opening {' and '.join(names)}", opened[0].recipe.runtime.device)
    serve([PlayedRun.of(run, name) for run, name in zip(opened, names, strict=True)], doors, own.port, limits)
