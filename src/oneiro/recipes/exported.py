"""A run as a folder for a model hub: weights, recipe and scores, nothing that is executed.

model.safetensors   every tensor of the agent
config.json         {"format": 1, "oneiro", "licence", "recipe", "obs", "actions", "parameters", "sha256"}
scores.json         what `oneiro evaluate --save` and the recipe's evaluation measured, by policy
README.md           the model card
replay/             where there is no environment to play (recorded video): a few short stretches, where dreams begin
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

import oneiro
from oneiro.data.episode_reader import EpisodeReader
from oneiro.data.episodes import Episode
from oneiro.data.store import SMALLEST_RAM, EpisodeStore
from oneiro.errors import OneiroError
from oneiro.evaluation.episodes import Scores
from oneiro.evaluation.stage import load_scores
from oneiro.spaces import Spaces
from oneiro.training.files import disk_errors, num_bytes, sha256, write_json, write_safetensors
from oneiro.training.recipe import Recipe
from oneiro.training.run import Trained
from oneiro.training.run_folder import RunFolder
from oneiro.training.state import load_module, module_tensors

FORMAT = 1
WEIGHTS = "model.safetensors"
PORTABLE = ("recipe", "size", "values")
"""What of a run's recipe.json is taken along; the rest is about the machine it was trained on."""
STARTS, MORE = 8, 16
"""Stretches of a replay that are taken along, and rows of each beyond those that the world looks at."""


def is_exported(path: Path | str) -> bool:
    """True for a folder that `export` wrote."""
    return (Path(path) / "config.json").is_file() and (Path(path) / WEIGHTS).is_file()


def export(run: Trained, folder: Path, licence: str = "unknown") -> Path:
    """Write the agent of `run` into a new or empty folder; OneiroError if something is there already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OneiroError(f"{folder} is not empty; name a new folder to export into")
    starts = [] if run.recipe.env.is_playable else stretches(run.store, run.agent.world.context or 1)
    tensors = module_tensors(run.agent)
    scores = {name: score.to_json() for name, score in load_scores(run.folder.path).items()}
    with disk_errors("the exported run", folder / WEIGHTS, num_bytes(tensors)):
        folder.mkdir(parents=True, exist_ok=True)
        write_safetensors(folder / WEIGHTS, tensors, {"format": "pt"})
        write_json(folder / "scores.json", scores)
        card = model_card(run, licence, load_scores(run.folder.path))
        (folder / "README.md").write_text(card, encoding="utf-8")
        if starts:
            with EpisodeStore(RunFolder(folder, {}, None).replay, ram=SMALLEST_RAM) as store:
                for episode in starts:
                    store.add(episode)
    config = {
        "format": FORMAT,
        "oneiro": oneiro.__version__,
        "licence": licence,
        "run": run.folder.id,
        "checkpoint": run.checkpoint,
        "recipe": {key: run.folder.recipe[key] for key in PORTABLE},
        **_spaces(run.spaces),
        "parameters": _count(run),
        "sha256": {WEIGHTS: sha256(folder / WEIGHTS)},
    }
    write_json(folder / "config.json", config)  # last: a folder without it is no export
    return folder


def stretches(store: EpisodeReader, context: int) -> list[Episode]:
    """At most `STARTS` pieces of stored episodes, evenly spread over all rows, as episodes of their own."""
    places = np.maximum(store.lengths - context, 0)
    if not places.sum():
        raise OneiroError(
            f"{store.folder} holds no episode longer than {context} rows, so no dream of the exported world could "
            "begin; train the run until its videos are read"
        )
    found = []
    for place in np.unique((np.arange(STARTS) + 0.5) * places.sum() / STARTS // 1).astype(int).tolist():
        index = int(np.searchsorted(places.cumsum(), place, side="right"))
        id, start = int(store.ids[index]), place - int(places.cumsum()[index] - places[index])
        rows = store.read(id, start, min(store.length(id), start + context + MORE))
        rows.action[0], rows.reward[0] = 0, 0
        ends = bool(rows.terminated[-1])
        info = {"source": f"episode {id}, row {start}", "truncated": not ends, "score": rows.score}
        found.append(replace(rows, id=len(found), start=0, info=info, memo={}))
    return found


def read_config(folder: Path | str) -> dict[str, Any]:
    """config.json of an exported folder; OneiroError if it is damaged or newer than this library."""
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        version, writer = int(config["format"]), config["oneiro"]
        assert all(key in config["recipe"] for key in PORTABLE)
        assert config["sha256"][WEIGHTS]
    except FileNotFoundError:
        raise OneiroError(f"{folder} is no exported run: it has no config.json and {WEIGHTS}") from None
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise OneiroError(f"{path} is damaged ({error!r}); export or download the folder again") from error
    if version > FORMAT:
        raise OneiroError(
            f"{folder} was exported by a newer oneiro ({writer}, format {version}; this is {oneiro.__version__}, "
            f"format {FORMAT}). Upgrade: pip install --upgrade oneiro"
        )
    return config


def open_exported(folder: Path | str, recipe: Recipe) -> Trained:
    """The agent of an exported folder, with the weights checked against their sum; nothing is written."""
    config, path = read_config(folder), Path(folder)
    weights = _read_weights(path / WEIGHTS, config["sha256"][WEIGHTS])
    content = {"format": 1, "id": config.get("run", ""), "recipe": config["recipe"], "launches": []}
    run = Trained(recipe, RunFolder(path, content, None))
    there = {key: config.get(key) for key in ("obs", "actions")}
    if (here := _spaces(run.spaces)) != there:
        raise OneiroError(
            f"{folder} was trained with {there}, but its environment has {here} here; install the version of the "
            "environment that it was trained in"
        )
    load_module(run.agent, weights, f"{folder}")
    run.checkpoint = str(config.get("checkpoint", ""))
    return run


def _read_weights(path: Path, expected: str) -> dict[str, Tensor]:
    try:
        if sha256(path) != expected:
            raise OneiroError(
                f"{path} is damaged or cut short: its checksum is not the one in config.json. Copy it again"
            )
        return {name: x.clone() for name, x in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise OneiroError(f"{path} cannot be read ({error}); copy it again") from error


def _spaces(spaces: Spaces) -> dict[str, Any]:
    """Shapes as JSON."""
    obs = {name: list(shape) for name, shape in spaces.obs.items()}
    return {"obs": obs, "actions": {"dim": spaces.action.dim, "groups": list(spaces.action.groups)}}


def _count(run: Trained) -> dict[str, int]:
    agent = run.agent
    return {
        "world": sum(p.numel() for p in agent.world.parameters()),
        "behaviour": sum(p.numel() for p in agent.behaviour.parameters()),
    }


def model_card(run: Trained, licence: str, scores: dict[str, Scores]) -> str:
    """README.md with the head that model hubs read."""
    record, count = run.folder.recipe, _count(run)
    name = f"{record['recipe'].rpartition(':')[2]} ({record['size']})"
    tag = licence if licence != "unknown" else "other"
    lines = ["---", f"license: {tag}", "library_name: oneiro", "tags: [world-model, reinforcement-learning]"]
    lines += ["---", "", f"# {name}", ""]
    lines += [f"Trained in {run.recipe.env.describe()}, seed {run.recipe.seed}. Licence: {licence}.", ""]
    lines += ["| part | parameters |", "|---|---:|"]
    lines += [f"| {part} | {n:,} |" for part, n in count.items()]
    lines += ["", "## Scores", ""]
    if scores:
        lines += ["| policy | mean | 95 % interval | episodes |", "|---|---:|---:|---:|"]
    for policy, score in scores.items():
        s = score.summary
        lines.append(f"| {policy} | {s.show(s.mean)} | {s.show(s.low)} to {s.show(s.high)} | {s.n} |")
    if not scores:
        lines.append("None was measured.")
    code = ["import oneiro", "", 'player = oneiro.load("FOLDER")', "env = player.env()"]
    if run.recipe.env.is_playable:
        lines += [
            "",
            "## Use",
            "",
            "```python",
            *code,
            "obs, _ = env.reset(seed=0)",
            "player.act(obs)",
            "```",
        ]
        first = "`oneiro evaluate FOLDER` plays it"
    else:
        lines += [
            "",
            "## Use",
            "",
            "`replay` holds short stretches of the recorded video, where dreams begin.",
        ]
        first = "`oneiro play FOLDER` opens a page to play in it"
    lines += ["", f"{first}; `oneiro import FOLDER --run RUN` makes a run folder of it."]
    return "\n".join(lines) + "\n"
