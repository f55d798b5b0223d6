"""Learning curves over seeds: `python benchmarks/learning.py cartpole minigrid`, or any command of one's own:

python benchmarks/learning.py mine --run "dreamerv3-gym --size cpu --env.id Acrobot-v1" --seeds 3 --peer "SB3 PPO=-80"

Each experiment is a list of `oneiro train` commands, each run with several seeds. Finished runs are not repeated and
stopped ones go on, so the command may be interrupted and repeated. Runs are in runs/learning/. At the end, and with
--report-only at any time, it writes results/NAME.json, results/NAME.md and results/NAME.svg: training-episode curves
with intervals over seeds, the scores of a separate evaluation, a random policy, published figures, time and memory.
"""

import argparse
import concurrent.futures
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evidence import RESULTS, Trial, facts, heading, measured, oneiro, read_usage, stop_all, write
from oneiro.evaluation.figures import learning_curves
from oneiro.evaluation.learning_curve import Band, band
from oneiro.evaluation.published import lookup
from oneiro.evaluation.run_result import RunResult, read_result
from oneiro.evaluation.stats import Summary, show, summarize
from oneiro.recipes import find
from oneiro.training.recipe import restore
from oneiro.training.run_folder import RunFolder

ROOT = Path("runs/learning")
SHARE = 0.1
"""Episodes that end in this last share of a run's frames make its training score; 2.5 % of a short run, as
published scores are read, holds too few."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Commands that are compared in one table, each with several seeds."""

    title: str
    commands: dict[str, str]
    """{label: RECIPE and options as typed after `oneiro train`}."""
    text: str = ""
    peers: dict[str, float] = field(default_factory=dict)
    """Scores of others on the task, drawn beside the curves."""

    def trials(self, name: str, seeds: Sequence[int]) -> list[Trial]:
        """Label by label, seed by seed."""
        found = []
        for k, (label, command) in enumerate(self.commands.items()):
            recipe, *options = shlex.split(command)
            size = options.pop(options.index("--size") + 1) if "--size" in options else find(recipe).sizes[0]
            options = [word for word in options if word != "--size"]
            folder = name if len(self.commands) == 1 else f"{name}-{k}"
            found += [
                Trial(label, f"{folder}-{seed}", seed, tuple(options), recipe, size, ROOT) for seed in seeds
            ]
        return found


EXPERIMENTS = {
    "cartpole": Experiment(
        title="DreamerV3 on CartPole-v1 of Gymnasium, from state",
        commands={"DreamerV3": "dreamerv3-gym --size cpu --env.id CartPole-v1"},
        text="The most that an episode can score is 500.",
    ),
    "cartpole_2023": Experiment(
        title="DreamerV3's first generation (2023) on CartPole-v1 of Gymnasium, from state",
        commands={"DreamerV3 (2023)": "dreamerv3-2023-gym --size cpu --env.id CartPole-v1"},
        text="The most that an episode can score is 500.",
    ),
    "swingup": Experiment(
        title="DreamerV3 on DeepMind Control cartpole_swingup, from state",
        commands={"DreamerV3": "dreamerv3-dmc-proprio --size cpu --env.task cartpole_swingup --env.num 4"},
    ),
    "minigrid": Experiment(
        title="DreamerV3 on MiniGrid, from pictures",
        commands={"DreamerV3": "dreamerv3-minigrid --size cpu"},
    ),
    "takecover": Experiment(
        title="DreamerV3 on VizDoom TakeCover, from pictures",
        commands={"DreamerV3": "dreamerv3-doom --size cpu"},
        text="Score: tics survived, at most 2,100; a decision every fourth tic.",
        peers={"World Models, published": 1092.0},
    ),
    "dreamer_precision": Experiment(
        title="DreamerV3 on CartPole-v1, bfloat16 against float32",
        commands={
            "bfloat16": "dreamerv3-gym --size cpu --env.id CartPole-v1",
            "float32": "dreamerv3-gym --size cpu --env.id CartPole-v1 --world.compute-dtype float32 "
            "--behaviour.compute-dtype float32",
        },
        text="bfloat16 is what is chosen where the processor multiplies in it.",
    ),
    "dreamer_precision_pixels": Experiment(
        title="DreamerV3 on VizDoom TakeCover, bfloat16 against float32",
        commands={
            "bfloat16": "dreamerv3-doom --size cpu",
            "float32": "dreamerv3-doom --size cpu --world.compute-dtype float32 "
            "--behaviour.compute-dtype float32",
        },
        text="bfloat16 is what is chosen where the processor multiplies in it.",
    ),
    "pacman": Experiment(
        title="DreamerV3 on Ms. Pac-Man, Atari 100k protocol",
        commands={"DreamerV3": "dreamerv3-atari100k --size cpu --env.game ms_pacman"},
        text="The published figures are those of 400,000 frames and networks of 18 to 200 million weights.",
    ),
}


def main() -> None:
    """Run the experiments, in order."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="+", help=f"{', '.join(EXPERIMENTS)}, or a new name together with --run"
    )
    parser.add_argument(
        "--run", action="append", default=[], metavar="[LABEL:]COMMAND", help="RECIPE and options"
    )
    parser.add_argument("--title", default="", help="of an experiment given by --run")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=SCORE", help="a score to draw beside"
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many: 0, 1, ...")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each run")
    parser.add_argument(
        "--episodes", type=int, default=100, help="of the evaluation, where the recipe has none"
    )
    parser.add_argument(
        "--report-only", action="store_true", help="write what there is, unfinished runs included"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in options.names:
        experiment = chosen(name, options)
        trials = experiment.trials(name, range(options.seeds))
        if not options.report_only:
            run_all(name, experiment, trials, options)
        report(name, experiment, trials)


def run_all(name: str, experiment: Experiment, trials: Sequence[Trial], options: argparse.Namespace) -> None:
    """`options.jobs` at a time, with a fresh report after each; a stop or a failure stops all, resumably."""
    pool = concurrent.futures.ThreadPoolExecutor(options.jobs)
    try:
        waiting = [pool.submit(work, trial, options.threads, options.episodes) for trial in trials]
        for done in concurrent.futures.as_completed(waiting):
            done.result()
            report(name, experiment, trials)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        stop_all()
        raise
    finally:
        pool.shutdown()


def chosen(name: str, options: argparse.Namespace) -> Experiment:
    """A named experiment, or the one of --run."""
    peers = {peer.rpartition("=")[0]: float(peer.rpartition("=")[2]) for peer in options.peer}
    if not options.run:
        if name not in EXPERIMENTS:
            raise SystemExit(f"unknown experiment {name!r}; known: {', '.join(EXPERIMENTS)}, or give --run")
        return EXPERIMENTS[name]
    commands = {}
    for given in options.run:
        label, colon, command = given.partition(": ")
        commands[label if colon else shlex.split(given)[0]] = command if colon else given
    return Experiment(title=options.title or name, commands=commands, peers=peers)


def work(trial: Trial, threads: int, episodes: int) -> None:
    """Train, and evaluate where the schedule did not; nothing if that is done."""
    scores = trial.path / "scores" / "real.json"
    if scores.exists():
        return
    measured(trial.command, trial.usage, threads=threads)
    if not scores.exists():
        oneiro(["evaluate", str(trial.path), "--episodes", str(episodes), "--save"], threads=threads)


def report(name: str, experiment: Experiment, trials: Sequence[Trial]) -> None:
    """results/NAME.json, .md and .svg."""
    results = {t: read(t) for t in trials if (t.path / "metrics.jsonl").exists()}
    if not results:
        raise SystemExit(f"no run of {name} has begun under {ROOT}: results/{name}.* are left as they are")
    about = facts(experiment.title, f"python benchmarks/learning.py {shlex.join(sys.argv[1:])}")
    task = next(iter(results.values())).task
    marks = references(task, results.values()) | experiment.peers
    end = max(r.budget or r.frames for r in results.values())
    groups = {label: [r for t, r in results.items() if t.label == label] for label in experiment.commands}
    bands = {label: band([r.episodes for r in runs], end) for label, runs in groups.items() if runs}
    rows = [describe(trial, result) for trial, result in results.items()]
    record = {
        **about,
        "task": task,
        "references": marks,
        "training score": f"mean of the training episodes that end in the last {SHARE:.0%} of a run's frames",
        "runs": rows,
        "curves": {label: each.to_json() for label, each in bands.items()},
    }
    write(name, record, page(name, experiment, about, rows, marks))
    draw(RESULTS / f"{name}.svg", task, {label: each for label, each in bands.items() if each.frame}, marks)


def read(trial: Trial) -> RunResult:
    """The files of a run folder as they are."""
    recipe = RunFolder.read(trial.path).recipe
    return read_result(trial.path, restore(find(recipe["recipe"]).build(recipe["size"]), recipe["values"]))


def references(task: str, results: Any) -> dict[str, float]:
    """A random policy, measured or published, and DreamerV3's published figures."""
    found: dict[str, float] = {}
    measured_random = [r.random.summary.mean for r in results if r.random]
    if measured_random:
        found["random policy, measured"] = summarize(measured_random).mean
    if pair := lookup(task):
        suite, name = pair
        if name in suite.random and not measured_random:
            found["random policy, published"] = suite.random[name]
        for method in suite.methods.values():
            score = method.mean(name) if method.name.startswith("DreamerV3") else None
            if score is not None:
                found[f"{method.name}, published, {suite.frames:,} frames"] = score
    return found


def describe(trial: Trial, result: RunResult) -> dict[str, Any]:
    """What one run gave."""
    end = min(result.frames, result.budget or result.frames)
    evaluation = result.evaluation
    return {
        "label": trial.label,
        "seed": trial.seed,
        "command": shlex.join(["oneiro", *trial.command]),
        "frames": result.frames,
        "budget": result.budget,
        "finished": evaluation is not None,
        "training_score": result.episodes.final(end, SHARE) if end else None,
        "training_episodes": len(result.episodes),
        "evaluation": evaluation
        and {**evaluation.summary.to_json(), "episodes": evaluation.score, "protocol": evaluation.protocol},
        "training_seconds": round(result.seconds, 1),
        **{f"all_{key}": value for key, value in read_usage(trial.usage).items()},
    }


def page(
    name: str, experiment: Experiment, about: dict, rows: Sequence[dict], marks: dict[str, float]
) -> list[str]:
    """The Markdown."""
    lines = heading(about, experiment.text)
    lines += ["", f"![Learning curves]({name}.svg)", ""]
    lines += [
        "| | training episodes, last tenth | evaluation, final policy | frames | training | peak memory |"
    ]
    lines += ["|---" * 6 + "|"]
    for row in rows:
        scores = row["evaluation"]
        shown = (
            str(Summary.from_json({k: scores[k] for k in ("mean", "std", "low", "high", "n")}))
            if scores
            else ""
        )
        lines.append(
            f"| {row['label']}, seed {row['seed']} | {number(row['training_score'])} | {shown or 'not finished'} "
            f"| {row['frames']:,.0f} | {row['training_seconds'] / 60:.0f} min | {memory(row)} |"
        )
    for label in experiment.commands:
        mine = [row for row in rows if row["label"] == label and row["finished"]]
        if len(mine) > 1:
            trained = [r["training_score"] for r in mine if r["training_score"] is not None]
            evaluated = [r["evaluation"]["mean"] for r in mine]
            cells = [str(summarize(scores)) if scores else "" for scores in (trained, evaluated)]
            lines.append(f"| **{label}, {len(mine)} seeds** | {cells[0]} | {cells[1]} | | | |")
    lines += [f"| {mark} | | {number(score)} | | | |" for mark, score in marks.items()]
    lines += [
        "",
        "Training episodes are played by the policy that learns, with sampled actions; the evaluation is separate, "
        "by the final policy. Intervals: 95 %, Student's t, over episodes for a run and over runs for all seeds. "
        "Published figures are training episodes, read out at the frames named.",
        *("", "Commands", "", "```"),
        *dict.fromkeys(row["command"] for row in rows),
        "```",
    ]
    return lines


def draw(path: Path, task: str, bands: dict[str, Band], marks: dict[str, float]) -> None:
    """The curves, once there is an episode of every seed."""
    if bands:
        path.write_text(learning_curves({task: bands}, marks={task: marks}))


def memory(row: dict[str, Any]) -> str:
    """Unless the run was not made by this script."""
    return f"{row['all_peak_gib']:.1f} GiB" if row["all_peak_gib"] else ""


def number(score: float | None) -> str:
    """With as many digits as it deserves."""
    return "" if score is None else show(score)


if __name__ == "__main__":
    main()
