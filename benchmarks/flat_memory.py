"""Memory of a DreamerV3 run of 200,000 steps, from its first step to its last: results/flat_memory.{md,json,svg}.

    python benchmarks/flat_memory.py                     # about half an hour of one core; goes on where it stopped
    python benchmarks/flat_memory.py --steps 20000 --report-only

The smallest network plays Ms. Pac-Man in eight slots at a low train ratio: what could grow is the replay (2.5 GB of
frames, packed to 0.2 GB, for `data.ram` 0.05: full after a quarter of the run) and what the loop keeps, not the
network. Memory is the proportional set size of the process and its environments together, every two seconds.
"""

import argparse
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np

from evidence import GIB, RESULTS, Trial, facts, heading, last_paragraph, memory, start, wait, write
from oneiro.evaluation.figures import learning_curves
from oneiro.evaluation.learning_curve import Band
from oneiro.training.log import read_metrics

ROOT = Path("runs/flat_memory")
SAMPLES = ROOT / "samples.jsonl"


def trial(steps: int) -> Trial:
    """The run that is watched."""
    options = ("--env.game", "ms_pacman", "--env.num", "8", "--data.ram", "0.05")
    stage = ("--schedule.online.steps", str(steps), "--schedule.online.train-ratio", "1")
    return Trial("DreamerV3", "run", 0, (*options, *stage), "dreamerv3-atari100k", "smoke", ROOT)


def watch(run: Trial, every: float = 2.0) -> None:
    """Train, and note {steps, bytes} of the run's processes."""
    process, over = start(run.command, threads=1), threading.Event()

    def look() -> None:
        with SAMPLES.open("a") as file:
            while not over.wait(every):
                file.write(json.dumps({"steps": steps_so_far(run), "bytes": memory(process.pid)}) + "\n")
                file.flush()

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        wait(process)
    finally:
        over.set()
        watcher.join()


def steps_so_far(run: Trial) -> float:
    """Of the last line of the log."""
    lines = read_metrics(run.path / "metrics.jsonl") if (run.path / "metrics.jsonl").exists() else []
    return max((line["step"] for line in lines if "replay/rows" in line), default=0)


def samples() -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the median GiB of the samples taken at each; the first thousand steps are start-up."""
    lines = [json.loads(line) for line in SAMPLES.read_text().splitlines()]
    steps = np.array([line["steps"] for line in lines])
    held = np.array([line["bytes"] for line in lines]) / GIB
    at = np.unique(steps[steps > 0])
    return at, np.array([np.median(held[steps == step]) for step in at])


def main() -> None:
    """Run, and write what was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args()
    ROOT.mkdir(parents=True, exist_ok=True)
    run = trial(options.steps)
    if not options.report_only:
        watch(run)
    steps, held = samples()
    last = held[steps > 0.75 * steps[-1]]
    slope = float(np.polyfit(steps[steps > steps[-1] / 2], held[steps > steps[-1] / 2], 1)[0])
    about = facts("Memory of a run of 200,000 steps", "python benchmarks/flat_memory.py")
    record: dict[str, Any] = {
        **about,
        "run": "oneiro " + " ".join(run.command),
        "steps": steps.tolist(),
        "gib": [round(float(x), 4) for x in held],
        "peak_gib": round(float(held.max()), 4),
        "last_quarter_gib": [round(float(last.min()), 4), round(float(last.max()), 4)],
        "mib_per_100k_steps_second_half": round(slope * 1e5 * 1024, 1),
    }
    lines = heading(about, last_paragraph(__doc__))
    lines += ["", "![Memory by step](flat_memory.svg)", "", "| | |", "|---|---|"]
    lines += [
        f"| steps | {steps[-1]:,.0f} |",
        f"| peak | {held.max():.2f} GiB |",
        f"| last quarter, least to most | {last.min():.2f} to {last.max():.2f} GiB |",
        f"| slope of the second half | {record['mib_per_100k_steps_second_half']:+.1f} MiB for 100,000 steps |",
        *("", "```", record["run"], "```"),
    ]
    write("flat_memory", record, lines)
    series = held.tolist()
    band = Band(frame=steps.tolist(), mean=series, low=series, high=series, runs=1)
    picture = learning_curves(
        {"agent steps": {"process and environments": band}}, y_name="memory, GiB", x_name="agent steps"
    )
    (RESULTS / "flat_memory.svg").write_text(picture)


if __name__ == "__main__":
    main()
