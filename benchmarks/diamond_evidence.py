"""What DIAMOND learns on a small machine: `python benchmarks/diamond_evidence.py learn steps ddpm`.

    learn    runs of the recipe: real scores, F1 of reward and end on held-out episodes, a film of a long dream
    steps    PSNR of the first run's dreams over the horizon with 1, 3, 5 and 10 denoising steps
    ddpm     the same for two denoisers fitted to the first run's episodes alike, one by EDM, one by DDPM

`--recipe diamond-doom` does so in the deadly corridor; `learn` writes results/diamond_learn of it, and diamond_arena of
the other. Finished runs are not repeated and stopped ones go on. Writes results/diamond_NAME.json, .md and pictures.
"""

import argparse
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from evidence import RESULTS, Trial, facts, heading, oneiro, write
from oneiro.agent import Agent
from oneiro.behaviours.explore import HeldRandom
from oneiro.data.collect import play
from oneiro.data.episodes import Episode
from oneiro.data.samplers import prefetch
from oneiro.data.store import EpisodeStore
from oneiro.evaluation.film import Style, open_loop_film, open_loop_strip
from oneiro.evaluation.foretelling import Foretelling, foretelling
from oneiro.evaluation.open_loop import OpenLoopResult, open_loop, rows
from oneiro.evaluation.stage import load_scores
from oneiro.nets.edm import from_levels
from oneiro.recipes.saved import open_run
from oneiro.training.fit import Fit, Fitter
from oneiro.training.guard import Guard
from oneiro.training.log import read_metrics
from oneiro.training.run import Trained
from oneiro.world import WorldModel
from vmc_evidence import compact, table

STEPS = (1, 3, 5, 10)
CONTEXT, HORIZON = 4, 100
SHOWN = (0, 1, 5, 10, 25, 50, 75, 100)
SEED = 2_000_003  # held-out episodes: neither collected nor scored ones
FILMED = 3  # denoising steps of the film, as published
UPDATES = 1200  # of each denoiser of the experiment ddpm


GAMES = {
    "diamond-arena": ("diamond_arena", "DIAMOND in VizDoom's defend_the_center"),
    "diamond-doom": ("diamond_learn", "DIAMOND on VizDoom's deadly corridor"),
}
"""By recipe: what the result of `learn` is called, and its title."""


@dataclass(frozen=True)
class Runs:
    """Runs of one recipe in one folder."""

    root: Path
    recipe: str
    seeds: list[int]

    def trial(self, seed: int) -> Trial:
        """One of them."""
        name = f"{self.recipe}-{seed}"
        return Trial(self.recipe, name, seed, ("--env.num", "1"), self.recipe, "cpu", self.root)

    def first(self) -> Trained:
        """The first, as it stands."""
        return open_run(self.trial(self.seeds[0]).path)

    def held_out(self, run: Trained, name: str, count: int, rows: int = 0) -> list[Episode]:
        """See the function."""
        return held_out(run, self.root, f"{self.recipe}-{name}", count, rows)

    def long(self, run: Trained) -> list[Episode]:
        """Held-out episodes for dreams of `HORIZON` steps."""
        return self.held_out(run, "long", 8, CONTEXT + HORIZON)


def held_out(run: Trained, folder: Path, name: str, count: int, rows: int = 0) -> list[Episode]:
    """`count` episodes of random play that are not in the run, of at least `rows` rows; kept in `folder`.

    With `rows` the game's time limit is lifted so far that they can be so long.
    """
    store = EpisodeStore(folder / name, ram=1 << 28)
    if len(store) < count:
        env = replace(run.recipe.env, num=1, max_tics=run.recipe.env.action_repeat * rows)
        policy = Agent(run.agent.world, HeldRandom(hold=(1, 8)).build(run.spaces))
        vector = env.make()
        try:
            for episode in play(vector, policy.eval(), range(20 * count), seed=SEED, explore=True):
                if len(episode) >= rows:
                    store.add(episode)
                if len(store) >= count:
                    break
        finally:
            vector.close()
        store.flush()
    return [store.read(int(i)) for i in store.ids[:count]]


def drift(world: WorldModel, episodes: list[Episode]) -> dict[str, OpenLoopResult]:
    """Open-loop dreams at each number of denoising steps."""
    found = {}
    for steps in STEPS:
        name = f"{steps} step{'s' * (steps > 1)}"
        found[name] = open_loop(
            world, episodes, context=CONTEXT, horizon=HORIZON, settings={"steps": float(steps)}
        )
    return found


def drift_lines(found: dict[str, OpenLoopResult]) -> tuple[list[str], dict]:
    """A table of mean PSNR by stretch of the horizon, and all curves."""
    edges = (0, 1, 5, 10, 25, 50, HORIZON)
    head = " | ".join(f"{a + 1}-{b}" if b - a > 1 else f"{b}" for a, b in pairwise(edges))
    curves = {name: result.curves() for name, result in found.items()}
    named = {name: curve["psnr"] for name, curve in curves.items()}
    named["last real frame held"] = next(iter(curves.values()))["held_psnr"]
    lines = [f"| PSNR (dB) at dreamed steps | {head} |", "|---" * len(edges) + "|"]
    for name, psnr in named.items():
        cells = [f"{np.mean(psnr[a + 1 : b + 1]):.1f}" for a, b in pairwise(edges)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines, {name: [round(x, 2) for x in psnr] for name, psnr in named.items()}


def learn(runs: Runs) -> None:
    """Scores and F1 of every finished run; a film of the first."""
    finished, lines_of_f1 = [], []
    file, title = GAMES[runs.recipe]
    for seed in runs.seeds:
        one = runs.trial(seed)
        oneiro(one.command)
        scores = load_scores(one.path)
        metrics = read_metrics(one.path / "metrics.jsonl")
        run = open_run(one.path)
        world, episodes = run.agent.world, runs.held_out(run, "held", 40)
        told = {
            "dreamed": foretelling(world, episodes, batch=40),
            "real": _on_real_pairs(world, episodes),
        }
        record = {"label": one.label, "seed": seed, "command": " ".join(one.command)}
        record |= {"seconds": metrics[-1]["time"], "scores": {k: compact(s) for k, s in scores.items()}}
        record |= {"foretelling": {name: _json(found) for name, found in told.items()}}
        finished.append(record)
        for name, found in told.items():
            lines_of_f1 += _lines(seed, name, found)
        if seed == runs.seeds[0]:
            result = open_loop(
                run.agent.world,
                runs.long(run),
                context=CONTEXT,
                horizon=HORIZON,
                settings={"steps": float(FILMED)},
            )
            RESULTS.mkdir(exist_ok=True)
            film = open_loop_film(result, count=1, style=Style(scale=6))
            film.save(RESULTS / f"{file}.webp", budget=300_000)
    about = facts(title, f"python benchmarks/diamond_evidence.py learn --recipe {runs.recipe}")
    lines = [*heading(about), ""]
    lines += ["Score = the game's own points, 100 episodes, the same ones for each policy. Mean ± standard"]
    lines += ["deviation (95 % interval). The behaviour learned in dreams only.", "", *table(finished), ""]
    lines += [
        "Reward signs and ends foretold on 40 held-out episodes of random play, one step ahead. What the reward"
    ]
    lines += ["model sees as the next frame is the dreamed one, or the real one:", ""]
    lines += [
        "| seed | next frame | class | rows | foretold | precision | recall | F1 | AUC |",
        "|---" * 9 + "|",
    ]
    lines += lines_of_f1
    lines += ["", f"Film: [{file}.webp]({file}.webp), {HORIZON} dreamed steps beside the truth."]
    lines += [
        f"A frame of it takes {FILMED} denoising steps; the behaviour learned with those of its recipe."
    ]
    write(file, {**about, "trials": finished}, lines)


@torch.no_grad()
def _on_real_pairs(world: WorldModel, episodes: list[Episode]) -> Foretelling:
    """As `foretelling`, but the frame that is judged is the real one."""
    signs, ends = [], []
    for episode in episodes:
        row = rows(episode, 0, len(episode))
        frames, action = from_levels(row.obs["image"])[None], row.action[None, 1:]
        live = torch.ones(action.shape[:2], dtype=torch.bool)
        logits, _, _ = world.reward(frames, action, *world.reward.start(1), live, ~live)
        signs.append(np.stack([logits[0, :, :3].argmax(-1).numpy() - 1, np.sign(episode.reward[1:])]))
        ends.append(np.stack([logits[0, :, 3:].softmax(-1)[:, 1].numpy(), episode.terminated[1:]]))
    return Foretelling.of(np.concatenate(signs, 1), np.concatenate(ends, 1))


def _lines(seed: int, name: str, found: Foretelling) -> list[str]:
    """Rows of the table, of the classes that occurred or were foretold."""
    lines = []
    for kind, score in {**found.reward, "end": found.end}.items():
        if score is not None and score.true + score.foretold:
            area = f"{found.end_auc:.2f}" if kind == "end" else ""
            shares = f"{score.precision:.2f} | {score.recall:.2f} | {score.f1:.2f} | {area}"
            lines.append(f"| {seed} | {name} | {kind} | {score.true} | {score.foretold} | {shares} |")
    return lines


def _json(found: Foretelling) -> dict:
    parts = {**{f"reward {k}": v for k, v in found.reward.items()}, "end": found.end}
    scores: dict = {name: score.to_json() for name, score in parts.items() if score is not None}
    if "end" in scores and not np.isnan(found.end_auc):
        scores["end"]["auc"] = round(found.end_auc, 4)
    return scores


def steps(runs: Runs) -> None:
    """The first run's dreams with more and fewer denoising steps."""
    run = runs.first()
    found = drift(run.agent.world, runs.long(run))
    _report("steps", "DIAMOND: denoising steps and drift", found, "The denoiser of the first run.", {})


def ddpm(runs: Runs) -> None:
    """Two denoisers of equal size and updates on equal batches of one data set."""
    run = runs.first()
    episodes = runs.long(run)
    found: dict[str, OpenLoopResult] = {}
    seconds = {}
    for objective in ("edm", "ddpm"):
        began = time.monotonic()
        world = _fitted(run, objective, runs.root / f"{runs.recipe}_{objective}_{UPDATES}.safetensors")
        seconds[objective] = round(time.monotonic() - began)
        found |= {f"{objective.upper()}, {k}": v for k, v in drift(world, episodes).items()}
    text = (
        f"Both fitted to the first run's episodes for {UPDATES} updates of 16 segments, in the paper's form: "
        "without self-feeding, all episodes alike."
    )
    _report("ddpm", "DIAMOND: EDM and DDPM", found, text, {"seconds of fitting": seconds})


def _fitted(run: Trained, objective: str, file: Path) -> WorldModel:
    """A new world whose denoiser alone is fitted; kept in `file`."""
    recipe = run.recipe
    config = replace(recipe.world, denoiser=replace(recipe.world.denoiser, objective=objective))
    torch.manual_seed(0)
    world = config.build(run.spaces)
    if file.exists():
        world.load_state_dict(load_file(file))
        return world.eval()
    epochs = recipe.schedule.epochs
    fit = Fit(groups=epochs.fit.groups[:1])
    fitter = Fitter(fit, Agent(world.train(), run.agent.behaviour), Guard(file.with_suffix(".guard")))
    batch = replace(epochs.tasks[0].batch, length=CONTEXT + 1, quarters=())
    for k, segments in enumerate(prefetch(batch.build(run.store, seed=0), 0, UPDATES)):
        losses = fitter.apply(segments)
        if (k + 1) % 50 == 0:
            print(objective, k + 1, float(losses.metrics["denoiser/loss"]), flush=True)
    save_file(world.state_dict(), file)
    return world.eval()


def _report(name: str, title: str, found: dict[str, OpenLoopResult], text: str, more: dict) -> None:
    about = facts(title, f"python benchmarks/diamond_evidence.py {name}") | more
    count = len(next(iter(found.values())).truth)
    lines = heading(
        about,
        f"{text} {count} held-out episodes of random play, {HORIZON} steps dreamed",
        f"from {CONTEXT} real frames with the recorded actions. PSNR of the mean error.",
    )
    body, curves = drift_lines(found)
    lines += ["", *body, "", f"![truth and dreams](diamond_{name}.png)"]
    write(f"diamond_{name}", {**about, "psnr": curves}, lines)
    Image.fromarray(open_loop_strip(found, SHOWN, scale=4)).save(
        RESULTS / f"diamond_{name}.png", optimize=True
    )


EXPERIMENTS = {f.__name__: f for f in (learn, steps, ddpm)}


def main() -> None:
    """Run the experiments named on the command line, in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(EXPERIMENTS))
    parser.add_argument("--recipe", choices=sorted(GAMES), default="diamond-arena")
    parser.add_argument("--root", type=Path, default=Path("runs/diamond"), help="where the runs are")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    for name in options.names:
        EXPERIMENTS[name](Runs(options.root, options.recipe, options.seeds))


if __name__ == "__main__":
    main()
