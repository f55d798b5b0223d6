"""The two-stage variant of DIAMOND learns VizDoom from recorded video: how long its dreams stay true.

    python benchmarks/diamond_video.py --game arena

Records videos, trains diamond-video on some of them, and compares dreams with others. Each part may be stopped and
goes on when the command is repeated. Writes results/diamond_video{,_arena}.{md,json} and a film.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evidence import facts, measured, oneiro, read_usage, write
from oneiro import runtime
from oneiro.data.store import EpisodeStore
from oneiro.data.video import VideoFormat, import_video
from oneiro.evaluation.film import open_loop_film
from oneiro.evaluation.open_loop import open_loop
from oneiro.recipes.saved import open_run
from oneiro.training.log import read_metrics
from oneiro.training.run import Trained
from oneiro.training.schedule import Update

PICTURE = ("--env.size", "120", "--env.width", "160", "--hold", "8")
CONTEXT, HORIZON = 5, 30


@dataclass(frozen=True)
class Game:
    """What is filmed, how many episodes to learn from and to dream of, and what its result is called."""

    scenario: str
    options: tuple[str, ...]
    train: int
    test: int
    result: str

    @property
    def film(self) -> Path:
        """Of one dream."""
        return Path("docs/assets") / f"{self.result}.webp"


GAMES = {
    "maze": Game(
        "my_way_home",
        (
            "--env.buttons",
            *("TURN_LEFT", "TURN_RIGHT", "MOVE_FORWARD", "MOVE_FORWARD+TURN_LEFT", "MOVE_FORWARD+TURN_RIGHT"),
        ),
        30,
        6,
        "diamond_video",
    ),
    "arena": Game("defend_the_center", ("--env.skill", "1"), 160, 40, "diamond_video_arena"),
}


def record(game: Game, root: Path, name: str, episodes: int, seed: int) -> Path:
    """A folder of videos; what is there is not played again."""
    folder = root / f"{name}_videos"
    if not (folder / "recording.json").exists():
        count = ["--episodes", str(episodes), "--seed", str(seed)]
        words = ["collect", "--env", f"doom:{game.scenario}", *PICTURE, *game.options, *count]
        oneiro([*words, "--out", str(root / name), "--videos", str(folder)])
    return folder


def held_out(run: Trained, videos: Path, folder: Path) -> EpisodeStore:
    """Videos that the run has not seen, as it would read them."""
    store = EpisodeStore(folder, ram=1 << 27)
    config = run.recipe.env
    format = VideoFormat(size=(config.height, config.width), fps=config.fps)
    for path in sorted(videos.glob("*.mp4"))[len(store) :]:
        import_video(path, store, run.spaces.action, format)
    store.flush()
    return store


def windows(store: EpisodeStore, count: int, seed: int = 0) -> list[Any]:
    """Stretches of CONTEXT + HORIZON rows from anywhere in the videos."""
    random, length = np.random.default_rng(seed), CONTEXT + HORIZON
    ids = random.choice(store.ids[store.lengths >= length], size=count)
    starts = [int(random.integers(store.length(int(id)) - length + 1)) for id in ids]
    return [store.read(int(id), start, start + length) for id, start in zip(ids, starts, strict=True)]


def main() -> None:
    """See the docstring of the file."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--game", choices=sorted(GAMES), default="arena")
    options.add_argument("--root", type=Path, help="default: runs/ and the name of the result")
    options.add_argument("--size", default="cpu")
    options.add_argument("--windows", type=int, default=48, help="stretches that are dreamed")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("options", nargs="*", help="after --: further options of `oneiro train`")
    own = options.parse_args()
    torch.set_num_threads(own.threads)
    game = GAMES[own.game]
    own.root = own.root or Path("runs") / game.result
    own.root.mkdir(parents=True, exist_ok=True)
    train = record(game, own.root, "train", game.train, 0)
    test = record(game, own.root, "test", game.test, 1)
    path, usage = own.root / "run", own.root / "usage.json"
    words = ["train", "diamond-video", "--size", own.size, "--env.videos", str(train), "--run", str(path)]
    words += ["--env.actions", *json.loads((train / "recording.json").read_text())["actions"]]
    if not (own.root / "done").exists():
        measured([*words, *own.options], usage, threads=own.threads)
        (own.root / "done").touch()
    run = open_run(path)
    with held_out(run, test, own.root / "test_store") as store:
        report(own, run, store, read_usage(usage))


def report(own: argparse.Namespace, run: Trained, store: EpisodeStore, usage: dict[str, float]) -> None:
    """Dream, measure, write."""
    runtime.seed_everything(0)
    began, seconds = time.perf_counter(), {}
    result = open_loop(run.agent.world, windows(store, own.windows), context=CONTEXT, horizon=HORIZON)
    frame = (time.perf_counter() - began) / HORIZON
    curves = result.curves()
    game = GAMES[own.game]
    game.film.parent.mkdir(exist_ok=True)
    open_loop_film(result).save(game.film, budget=390_000)
    metrics = read_metrics(run.folder.metrics)
    loss = {
        part: [m[f"{part}/loss"] for m in metrics if f"{part}/loss" in m]
        for part in ("denoiser", "upsampler")
    }
    for stage, _ in run.stages:
        seconds[stage] = max((m["time"] for m in metrics if m["stage"] == stage), default=0.0)
    record = {
        **facts(
            "DIAMOND in two stages from recorded video",
            " ".join(
                [
                    f"python benchmarks/diamond_video.py --game {own.game}",
                    *(["--", *own.options] if own.options else []),
                ]
            ),
        ),
        "threads": own.threads,
        "seed": run.recipe.seed,
        "train": {"videos": len(run.store), "frames": run.store.rows},
        "test": {"videos": len(store), "frames": store.rows, "windows": own.windows},
        "fps": run.recipe.env.fps,
        "updates": {name: stage.updates for name, stage in run.stages if isinstance(stage, Update)},
        "parameters": {p: sum(x.numel() for x in getattr(run.agent.world, p).parameters()) for p in loss},
        "usage": usage,
        "stage_ends_at_seconds": seconds,
        "seconds_per_frame_batched": frame / own.windows,
        "loss": {part: {"first": x[0], "last": x[-1]} for part, x in loss.items()},
        "curves": curves,
    }
    write(game.result, json.loads(json.dumps(record)), table(game, record))


def table(game: Game, record: dict[str, Any]) -> list[str]:
    """The result as text."""
    train, test, curves = record["train"], record["test"], record["curves"]
    minutes = train["frames"] / record["fps"] / 60
    rows = [
        f"| {t} | {curves['psnr'][t]:.1f} | {curves['held_psnr'][t]:.1f} |"
        for t in (0, 1, 2, 3, 5, 10, 20, HORIZON)
    ]
    counts = ", ".join(f"{name} {n:,}" for name, n in record["parameters"].items())
    updates = ", ".join(f"{name} {n:,}" for name, n in record["updates"].items())
    losses = "; ".join(f"{n} {x['first']:.3f} to {x['last']:.3f}" for n, x in record["loss"].items())
    return [
        f"# {record['title']}",
        "",
        f"`{record['command']}`, commit {record['commit']}, {record['hardware']}, torch {record['torch']}, "
        f"seed {record['seed']}.",
        "",
        f"{train['videos']} videos of VizDoom's {game.scenario} by random play, {train['frames']:,} frames, "
        f"{minutes:.0f} minutes at {record['fps']:g} frames a second. Pictures 72 x 96, dreamed at 18 x 24 first. "
        f"Weights: {counts}. Updates: {updates}.",
        "",
        f"Training took {record['usage']['seconds'] / 60:.0f} minutes of wall time on a machine that other work was "
        f"using too, with {record['usage']['peak_gib']:.1f} GiB at most. Loss (mean over the first and the last "
        f"lines of the log): {losses}.",
        "",
        f"Dreams of {test['windows']} stretches of {test['videos']} other videos: {CONTEXT} real frames, then the "
        f"recorded actions. PSNR in dB against the recorded frames; beside it that of the last real frame, held.",
        "",
        "| step | dream | frame held |",
        "|---|---|---|",
        *rows,
        "",
        f"![Truth, dream and difference](../{game.film})",
    ]


if __name__ == "__main__":
    main()
