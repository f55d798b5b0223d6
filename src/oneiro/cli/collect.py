"""`oneiro collect`: episodes of any environment, by a random policy or a run's agent, into a replay folder."""

import dataclasses
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from oneiro import runtime
from oneiro.agent import Agent
from oneiro.behaviours.explore import HeldRandom, RandomLinear
from oneiro.cli.collection import Collection
from oneiro.cli.environments import find_env
from oneiro.cli.options import about, command_line, parse, parse_with_record, take
from oneiro.data.collect import play
from oneiro.data.minari import export_minari, import_minari
from oneiro.data.video import export_video
from oneiro.data.video_note import NAME, VideoNote
from oneiro.envs.config import EnvConfig
from oneiro.errors import MissingExtra, OneiroError
from oneiro.play.keys import meanings
from oneiro.recipes.saved import open_run
from oneiro.training.progress import Progress
from oneiro.training.recipe import to_json
from oneiro.training.run import GIB, Stopped, Trained
from oneiro.training.signals import Stop

EXAMPLE = "oneiro collect --env takecover --env.action-repeat 4 --hold 10 --episodes 20 --out data/takecover"
FLUSH_SECONDS = 20.0  # what a kill may cost


@dataclass(frozen=True)
class Collect:
    """Record episodes with a random policy or with a run's agent; the same command again goes on.

    Environments: takecover, doom:SCENARIO, car-racing, atari:GAME, dmc:TASK, crafter, minigrid:ID, procgen:GAME,
    toy:dodge, toy:catch, toy:counter, any Gymnasium id (package:Id of your own), or file.py:Config of your own. Their
    options are --env.OPTION: oneiro collect --env NAME --help lists them. Instead of playing, --from-minari imports a
    Minari data set. Episode k is a function of the seed and k.
    """

    env: str | None = None  # environment, played by a random policy
    run: Path | None = None  # or run folder: its agent plays the environment it was trained in
    from_minari: str | None = None  # or Minari data set (id or folder) to import
    out: Path | None = None  # replay folder; required
    episodes: int = 20  # how many the folder shall hold; those already there are not played again
    seed: int = 0  # of episodes and policy
    policy: Literal["held", "linear"] = (
        "held"  # held: uniform, kept for a while; linear: the random car driver
    )
    hold: tuple[int, ...] = (1,)  # held: an action lasts 1 to k decisions; several k: one drawn per episode
    explore: bool = True  # the run's agent explores, if it can
    videos: Path | None = None  # afterwards export as mp4 + actions into this folder, for diamond-video
    fps: float = 0.0  # frames a second of these videos; 0 = that of the game
    minari: str | None = None  # afterwards export as this Minari data set, for example local/takecover-v0
    ram: float = 0.5  # GiB the replay may use
    capacity: int = 0  # rows kept, the oldest episodes go first; 0 = all
    recipe: str | None = None  # file.py:function, if the run was made by a recipe of your own
    json: bool = False  # machine-readable output


def collect_command(arguments: Sequence[str]) -> int:
    """See `oneiro collect --help`."""
    run, own, env = _parse(arguments)
    if len([x for x in (own.env, own.run, own.from_minari) if x is not None]) != 1:
        raise OneiroError(f"name one of --env, --run and --from-minari. Example: {EXAMPLE}")
    if own.out is None:
        raise OneiroError("name the replay folder with --out, for example --out data/takecover")
    if own.episodes < 1 or own.ram <= 0 or own.capacity < 0:
        raise OneiroError("--episodes must be at least 1, --ram positive and --capacity not negative")
    if (own.minari or own.from_minari) and importlib.util.find_spec("minari") is None:
        raise MissingExtra("minari", "minari")  # before hours of playing, not after
    fps = _fps(own, env)
    if env is not None:
        env.require()
    source = _source(own, run, env)
    command = command_line("collect", arguments)
    stopped = False
    with Collection(own.out, source, command, ram=int(own.ram * GIB), capacity=own.capacity) as collection:
        if env is None:
            spaces = _import(own, collection)
        else:
            spaces = env.spaces()
            stopped = not _play(own, collection, run, env)
        if own.minari and not stopped:
            note = {"description": env.describe()} if env else {}
            export_minari(collection.store, own.minari, spaces, **note)
        if own.videos and env is not None and not stopped:
            _film(collection, own.videos, env, fps)
        summary = collection.summary()
    summary |= {"source": source, "minari": None if stopped else own.minari}
    summary |= {"videos": str(own.videos) if own.videos and not stopped else None}
    print(json.dumps(summary)) if own.json else _print(summary)
    if stopped:
        print(f"stopped and kept in {own.out}; the same command goes on from here", file=sys.stderr)
    return 130 if stopped else 0


def _parse(arguments: Sequence[str]) -> tuple[Trained | None, Collect, EnvConfig | None]:
    """The run and the environment are needed first: they decide which --env.OPTIONs there are."""
    env_name, rest = take("--env", arguments)
    run_path, rest = take("--run", rest)
    recipe, rest = take("--recipe", rest)
    run = open_run(run_path, recipe) if run_path and not env_name else None
    env = run.recipe.env if run else find_env(env_name) if env_name else None
    if env is None:
        own = parse(Collect, rest, "collect", EXAMPLE)
    else:
        text = about(Collect, EXAMPLE)
        own, env = parse_with_record(Collect, rest, env, "oneiro collect", text, name="env")
    path = Path(run_path) if run_path else None
    return run, dataclasses.replace(own, env=env_name, run=path, recipe=recipe), env


def _source(own: Collect, run: Trained | None, env: EnvConfig | None) -> dict[str, Any]:
    """What decides every episode, for the note in the folder."""
    if env is None:
        return {"minari": own.from_minari}
    if run is not None:
        policy = {"run": run.folder.id, "checkpoint": run.checkpoint, "explore": own.explore}
    else:
        policy = to_json(_policy(own)) | {"name": own.policy}
    return {"env": {"type": type(env).__name__, "values": to_json(env)}, "policy": policy, "seed": own.seed}


def _policy(own: Collect) -> Any:
    return HeldRandom(hold=own.hold) if own.policy == "held" else RandomLinear()


def _play(own: Collect, collection: Collection, run: Trained | None, env: EnvConfig) -> bool:
    """Play what is missing; False if a signal ended it."""
    store, flushed = collection.store, time.monotonic()
    missing = store.missing(range(own.episodes))
    agent = run.agent if run else Agent(None, _policy(own).build(env.spaces()))
    device = run.recipe.runtime.device if run else "cpu"
    runtime.seed_everything(own.seed)
    with Stop() as stop, Progress(env.describe(), device, own.out) as progress:
        progress.stage("collect", 0, 1, own.episodes)
        progress.advance(own.episodes - len(missing))

        def on_step(n: int) -> None:
            if stop.requested:
                raise Stopped
            progress.advance(0, env_steps=n)

        if not missing:
            return True
        slots = env.make(min(env.num, len(missing)))
        try:
            for episode in play(
                slots, agent.eval(), missing, seed=own.seed, explore=own.explore, on_step=on_step
            ):
                store.add(episode)
                progress.advance(1, metrics={"score": float(episode.info["score"])})
                if time.monotonic() - flushed > FLUSH_SECONDS:
                    store.flush()
                    flushed = time.monotonic()
        except Stopped:
            return False
        finally:
            slots.close()
    return True


def _fps(own: Collect, env: EnvConfig | None) -> float:
    """Frame rate of the videos, 0 if there are to be none; looked at before hours of playing, not after."""
    if own.videos is None:
        if own.fps:
            raise OneiroError("--fps is the frame rate of --videos FOLDER; name both or leave it out")
        return 0.0
    if env is None:
        raise OneiroError(
            "--videos films what is played; name an environment with --env, or a run with --run"
        )
    if importlib.util.find_spec("av") is None:
        raise MissingExtra("av", "video")
    fps = own.fps or env.steps_per_second
    if not fps > 0:
        raise OneiroError(
            f"nobody knows how many steps a second {type(env).__name__} makes; name it with --fps"
        )
    if own.videos.is_dir() and not (own.videos / NAME).exists() and any(own.videos.iterdir()):
        raise OneiroError(f"{own.videos} holds other files; name a new or empty folder with --videos")
    return fps


def _film(collection: Collection, folder: Path, env: EnvConfig, fps: float) -> None:
    """mp4 + actions of every episode, and the note that says what the actions mean."""
    codec = env.spaces().action
    export_video(collection.store, folder, fps)
    VideoNote.of(codec, meanings(env, codec.dim), fps, env.describe()).write(folder)


def _import(own: Collect, collection: Collection) -> Any:
    if len(collection.store):
        raise OneiroError(
            f"{own.out} holds {len(collection.store)} episodes already; import into a new folder (after an import "
            "that was cut short, delete this one first)"
        )
    assert own.from_minari is not None
    return import_minari(own.from_minari, collection.store)


def _print(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=summary["folder"], title_justify="left")
    for name in ("episodes", "rows", "mean score", "std", "bytes"):
        table.add_column(name, justify="right")
    score = summary["score"] or {"mean": float("nan"), "std": None}
    numbers = [f"{score['mean']:,.1f}", "" if score["std"] is None else f"{score['std']:,.1f}"]
    table.add_row(f"{summary['episodes']:,}", f"{summary['rows']:,}", *numbers, f"{summary['bytes']:,}")
    Console().print(table)
    if summary["crashed"]:
        print(f"{summary['crashed']} episodes were cut short by a crash; each is marked in its info")
    if summary["videos"]:
        print(f"videos: {summary['videos']}; oneiro train diamond-video --env.videos {summary['videos']}")
    if summary["minari"]:
        print(f"exported as the Minari data set {summary['minari']}")
