"""Run folders made of weights that came from elsewhere: an exported run, or a file that DIAMOND's authors released."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from oneiro import runtime
from oneiro.data.collect import play
from oneiro.data.episodes import Episode
from oneiro.data.replay import Replay
from oneiro.data.store import EpisodeStore
from oneiro.errors import OneiroError
from oneiro.recipes import find
from oneiro.recipes.diamond_weights import load_released, read_released
from oneiro.recipes.exported import PORTABLE, open_exported, read_config
from oneiro.recipes.saved import recipe_of
from oneiro.training.checkpoint import Checkpoints
from oneiro.training.files import disk_errors
from oneiro.training.guard import Guard
from oneiro.training.recipe import to_json, tweak
from oneiro.training.run import Trained, keeps_streams
from oneiro.training.run_folder import RunFolder
from oneiro.training.state import module_tensors, random_state


def import_exported(
    folder: Path, path: Path, command: str, *, episodes: int = 0, recipe: str | None = None
) -> Trained:
    """A run folder at `path` with the agent of an exported folder."""
    record = read_config(folder)["recipe"]
    made = recipe_of(record, folder, recipe)
    if made.env.is_playable:
        made.env.require()
    return _found(
        open_exported(folder, made), {key: record[key] for key in PORTABLE}, path, command, episodes
    )


def import_diamond(
    checkpoint: Path,
    game: str,
    path: Path,
    command: str,
    *,
    size: str = "paper",
    episodes: int = 0,
) -> Trained:
    """A run folder at `path` with released weights of DIAMOND for an Atari game.

    OneiroError for a file with anything but weights, for another game, and for other sizes (the tensors by name).
    """
    tensors = read_released(checkpoint)
    recipe = tweak(find("diamond-atari").build(size), {"env.game": game})
    stage = recipe.schedule.evaluate
    if stage.env is not None:
        recipe = tweak(recipe, {"schedule.evaluate.env.game": game})
    recipe.env.require()
    record = {"recipe": "diamond-atari", "size": size, "values": to_json(recipe)}
    run = Trained(recipe, RunFolder(path, {"id": "", "recipe": record, "launches": []}, None))
    _require_actions(tensors, run, game)
    load_released(run.agent, tensors)
    return _found(run, record, path, command, episodes)


def _require_actions(tensors: dict[str, torch.Tensor], run: Trained, game: str) -> None:
    """The last tensor of the actor-critic is the actor's bias: one number an action."""
    last = [x for name, x in tensors.items() if name.startswith("actor_critic.")][-1:]
    here = run.spaces.action.dim
    if last and last[0].ndim == 1 and len(last[0]) != here:
        raise OneiroError(
            f"these weights choose among {len(last[0])} actions, {game} has {here}; name the game they were trained in "
            "with --game"
        )


def _found(run: Trained, record: dict[str, Any], path: Path, command: str, episodes: int) -> Trained:
    """Make the run folder: recipe, one checkpoint at the end of the schedule, and some real episodes.

    They are played; where there is nothing to play, those that were exported are taken.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OneiroError(f"{path} is not empty; name a new folder with --run")
    state = {
        "index": len(run.stages),
        "done": {},
        "carry": {},
        "log": None,
        "guard": Guard(path).state(),
        "random": random_state(),
        "replay": None,
        "fitter": None,
    }
    try:
        with RunFolder.open(path, record, command) as folder:
            Checkpoints(folder.checkpoint).save(1, {"weights": module_tensors(run.agent)}, state)
            if not run.recipe.env.is_playable and run.folder.replay.is_dir():
                with disk_errors("the rows where dreams begin", folder.replay):
                    shutil.copytree(run.folder.replay, folder.replay)
            elif episodes and run.recipe.env.is_playable:
                _fill(run, folder, episodes)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)  # half a run is none
        raise
    return Trained.load(run.recipe, RunFolder.read(path))


def _fill(run: Trained, folder: RunFolder, episodes: int) -> None:
    """Episodes that the agent plays, where its dreams can begin."""
    runtime.seed_everything(run.recipe.seed)
    env = run.recipe.env.make(min(run.recipe.env.num, episodes))
    try:
        played = play(env, run.agent.eval(), range(episodes), seed=run.recipe.seed, explore=True)
        ram = int(run.recipe.data.ram * (1 << 30))
        if keeps_streams(run.recipe):
            with Replay(folder.replay, streams=1, ram=ram) as replay:
                for episode in played:
                    _append(replay, episode)
            return
        with EpisodeStore(folder.replay, ram=ram) as store:
            for episode in played:
                store.add(episode)
    finally:
        env.close()


def _append(replay: Replay, episode: Episode) -> None:
    """An episode at the end of the only stream."""
    columns = {name: x for name, x in episode.columns().items() if name != "terminated"}
    last = len(episode) - 1
    for t in range(len(episode)):
        replay.append(
            {name: x[t : t + 1] for name, x in columns.items()},
            np.array([t == 0]),
            episode.terminated[t : t + 1],
            np.array([t == last]),
        )
