"""The experiments behind results/, by name: `python benchmarks/vmc_evidence.py controls car`.

Each experiment is a list of `oneiro train` commands; finished runs are not repeated and stopped ones go on, so the
command may be interrupted and repeated. At the end it writes results/NAME.json and results/NAME.md.
"""

import argparse
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from evidence import Trial, facts, heading, measured, oneiro, read_usage, write
from oneiro.evaluation.episodes import Scores
from oneiro.evaluation.stage import load_scores
from oneiro.evaluation.stats import summarize
from oneiro.training.log import read_metrics

ROOT = Path("runs/evidence")
TEMPERATURES = (0.1, 0.5, 1.0, 1.15, 1.3)


@dataclass
class Experiment:
    """Trials, and the words around their table."""

    title: str
    text: str
    trials: list[Trial] = field(default_factory=list)


def demo() -> Experiment:
    """Three seeds of `make demo`."""
    text = (
        "C is evolved only in the dream. The bar: the lower end of the real interval is 2.5 x random or more."
    )
    return Experiment("The demo, three seeds", text, [Trial("demo", f"demo-{s}", s) for s in range(3)])


def branch(
    label: str, name: str, seed: int, *options: str, stage: str = "evolve", base: str = "demo-0"
) -> Trial:
    """A trial that shares the experience and the world of a demo run."""
    origin = ("--origin", str(ROOT / base), "--origin-stage", stage)
    return Trial(label, name, seed, (*origin, *options, "--schedule.evaluate.with-rivals", "False"))


def temperature() -> Experiment:
    """One V and M; only C is evolved again, with the end of a dream sampled."""
    return _temperatures("sample", "sampled")


def threshold() -> Experiment:
    """The same with the end thresholded, as the paper's code has it."""
    return _temperatures("threshold", "thresholded")


def _temperatures(ending: str, word: str) -> Experiment:
    trials = [Trial("base", "demo-0", 0)]
    for seed in (1, 2):
        for tau in TEMPERATURES:
            options = ("--schedule.evolve.temperature", str(tau), "--world.ending", ending)
            name = f"tau-{ending}-{tau}-{seed}"
            trials.append(branch(f"tau {tau:.2f}, end {word}", name, seed, *options))
    text = "One data set, one V and M (demo, seed 0); C evolved again at each temperature, two seeds."
    return Experiment(f"Temperature, the dream's end {word}: its score and the real one", text, trials)


def controls() -> Experiment:
    """Does the dream matter?"""
    blind = (
        "--origin-parts",
        "vision",
        "--schedule.memory.updates",
        "0",
        "--world.end-bias",
        "-4.4",
    )
    real = (
        *blind,
        "--schedule.evolve.where",
        "env",
        "--schedule.evolve.cma.population",
        "32",
        "--schedule.evolve.episodes",
        "4",
        "--schedule.evolve.generations",
        "30",
    )
    trials = [Trial("trained M, C evolved in the dream", "demo-0", 0)]
    for seed in (1, 2):
        trials += [
            branch("trained M, C evolved in the dream", f"control-full-{seed}", seed),
            branch("z only, C evolved in the dream", f"control-z-{seed}", seed, "--world.feature", "z"),
            branch(
                "untrained M, C evolved in its dream", f"control-blind-{seed}", seed, *blind, stage="memory"
            ),
            branch(
                "untrained M, C evolved in the real game", f"control-real-{seed}", seed, *real, stage="memory"
            ),
        ]
    text = "One data set and one V (demo, seed 0)."
    return Experiment("Controls: does the dream matter?", text, trials)


def precision() -> Experiment:
    """float32, to be held against results/demo.md, which was made where processors multiply in bfloat16."""
    options = ("--world.compute-dtype", "float32")
    trials = [Trial("float32", f"float32-{seed}", seed, options) for seed in range(3)]
    text = "The demo in float32. The same seeds with bfloat16 matrix products: results/demo.md."
    return Experiment("The demo in float32", text, trials)


def long() -> Experiment:
    """The largest budget that fits in the time there is."""
    options = (
        *("--schedule.collect.episodes", "3000", "--schedule.vision.updates", "3000"),
        *("--schedule.vision.fit.groups.0.optimizer.decay-steps", "3000"),
        *(
            "--schedule.memory.updates",
            "1500",
            "--schedule.memory.fit.groups.0.optimizer.decay-steps",
            "1500",
        ),
        *("--schedule.evolve.generations", "100", "--schedule.evolve.episodes", "16"),
        *("--schedule.evolve.test-every", "25", "--schedule.evolve.result", "best"),
    )
    return Experiment(
        "A longer TakeCover run",
        "Demo settings, twice the episodes, three times the updates, twice the rollouts and generations.",
        [Trial("long", "long-0", 0, options)],
    )


def car() -> Experiment:
    """z and h against z only, with the control of a random M."""
    budget = (
        *("--schedule.vision.updates", "1600", "--schedule.memory.updates", "300"),
        *("--schedule.evolve.generations", "40", "--schedule.evolve.episodes", "2"),
    )
    base = Trial("z and h, trained M", "car-0", 0, budget, "vmc-carracing")
    origin = ("--origin", str(base.path))
    trials = [base]
    variants = {
        "z only": ("--origin-stage", "evolve", "--world.feature", "z"),
        "z and h, untrained M": (
            "--origin-stage",
            "memory",
            "--origin-parts",
            "vision",
            "--schedule.memory.updates",
            "0",
        ),
    }
    for label, options in variants.items():
        name = f"car-{label.replace(' ', '-').replace(',', '')}"
        trials.append(
            Trial(
                label,
                name,
                0,
                (*origin, *budget, *options, "--schedule.evaluate.with-rivals", "False"),
                "vmc-carracing",
            )
        )
    return Experiment(
        "Car racing: does h help, and does M?",
        "One data set, one V; the same number of rollouts for each; one seed.",
        trials,
    )


EXPERIMENTS = {f.__name__: f for f in (demo, temperature, threshold, controls, precision, long, car)}


def main() -> None:
    """Run the experiments named on the command line, in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(EXPERIMENTS))
    parser.add_argument("--report-only", action="store_true", help="write the tables of what is finished")
    options = parser.parse_args()
    for name in options.names:
        experiment = EXPERIMENTS[name]()
        if not options.report_only:
            for trial in experiment.trials:
                work(trial)
        tabulate(name, experiment)


def work(trial: Trial) -> None:
    """Train, measured; a finished run has nothing left to do, so that is not counted as its time."""
    if describe(trial):
        oneiro(trial.command)
    else:
        measured(trial.command, trial.usage)


def tabulate(name: str, experiment: Experiment) -> None:
    """results/NAME.json and results/NAME.md."""
    rows = [record for trial in experiment.trials if (record := describe(trial))]
    if not rows:
        raise SystemExit(f"no run of {name} is finished under {ROOT}: results/{name}.* are left as they are")
    about = facts(experiment.title, f"python benchmarks/vmc_evidence.py {name}")
    lines = heading(about, experiment.text)
    lines += ["", *table(rows), "", "Commands", "", "```"]
    lines += [*(f"oneiro {record['command']}" for record in rows), "```"]
    write(name, {**about, "trials": rows}, lines)


def describe(trial: Trial) -> dict | None:
    """What one finished run gave."""
    scores = load_scores(trial.path) if trial.path.exists() else {}
    if "real" not in scores:
        return None
    seconds = read_metrics(trial.path / "metrics.jsonl")[-1]["time"]
    record = {
        "label": trial.label,
        "seed": trial.seed,
        "command": shlex.join(trial.command),
        "seconds": seconds,
    }
    if trial.usage.exists():  # not of runs from before this was noted
        record |= {f"all_{key}": value for key, value in read_usage(trial.usage).items()}
    return {**record, "scores": {policy: compact(s) for policy, s in scores.items()}}


def compact(scores: Scores) -> dict:
    """Summary and single episodes."""
    return {
        **scores.summary.to_json(),
        "episodes": [round(x, 1) for x in scores.score],
        "protocol": scores.protocol,
    }


def table(rows: list[dict]) -> list[str]:
    """Markdown: one line a run, and one for all seeds of a label."""
    policies = [
        p for p in ("random", "random_same_hold", "dream", "real") if any(p in r["scores"] for r in rows)
    ]
    head = "| | seed | " + " | ".join(p.replace("_", ", ") for p in policies)
    head += " | seconds | with start and stops | peak memory |"
    lines = [head, "|---" * (5 + len(policies)) + "|"]
    for row in rows:
        cells = [cell(row["scores"].get(p)) for p in policies]
        cells.append(f"{row['seconds']:.0f}")
        cells.append(f"{row['all_seconds']:.0f}" if "all_seconds" in row else "")
        cells.append(f"{row['all_peak_gib']:.2f} GiB" if "all_peak_gib" in row else "")
        lines.append(f"| {row['label']} | {row['seed']} | {' | '.join(cells)} |")
    for label in dict.fromkeys(r["label"] for r in rows):
        same = [r for r in rows if r["label"] == label]
        if len(same) > 1:
            cells = []
            for p in policies:
                means = [r["scores"][p]["mean"] for r in same if p in r["scores"]]
                cells.append(f"**{short(summarize(means).mean)}** ({spread(means)})" if means else "")
            lines.append(f"| **{label}** | all {len(same)} | {' | '.join(cells)} | | | |")
    return lines


def spread(means: list[float]) -> str:
    """Least and most."""
    return f"{short(min(means))} to {short(max(means))}"


def cell(score: dict | None) -> str:
    """Mean, standard deviation and 95 % interval."""
    if score is None:
        return ""
    mean, std, low, high = (short(score[name]) for name in ("mean", "std", "low", "high"))
    return f"{mean} ± {std} ({low} to {high})"


def short(number: float) -> str:
    """Whole numbers, from 20 on; two places below."""
    return f"{number:.0f}" if abs(number) >= 20 else f"{number:.2f}"


if __name__ == "__main__":
    main()
