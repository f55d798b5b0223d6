"""RAM that `oneiro show` predicts against RAM that `oneiro train` takes: results/memory_estimate.{json,md}.

    python benchmarks/memory.py                 measure all sizes (minutes each) and compare
    python benchmarks/memory.py --sizes 12m     measure one, keep the others
    python benchmarks/memory.py --sizes         predict anew, keep what was measured

Each run plays MiniGrid in four slots until a few updates have been made at the recipe's batch, and is then stopped.
Measured is the largest sum of proportional set sizes (PSS) of the process and its workers, ten times a second.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from evidence import facts, heading, write

RESULTS = Path(__file__).parents[1] / "results" / "memory_estimate"
ONEIRO = [sys.executable, "-m", "oneiro.cli"]
STEPS = {"smoke": 200, "1m": 1330, "12m": 1330}  # of which the last are trained on
MIB = 1 << 20


def options(size: str) -> list[str]:
    """What both commands are given."""
    steps = ["--schedule.online.steps", str(STEPS[size]), "--schedule.online.train-ratio", "40"]
    log = ["--schedule.online.log-every", "1000000"]
    return ["dreamerv3-minigrid", "--size", size, *steps, *log, "--runtime.threads", "1"]


def measure(size: str) -> dict[str, Any]:
    """Peak MiB of the run's processes together, and of each kind at that moment."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [*ONEIRO, "train", *options(size), "--run", str(run), "--quiet"]
        with open(Path(folder) / "log", "w") as log:
            child = psutil.Popen(command, stderr=log, stdout=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
            peak: dict[str, Any] = {"mib": 0.0}
            while child.poll() is None:
                held = [_held(child), *map(_held, child.children(recursive=True))]
                if sum(held) > peak["mib"]:
                    peak = {"mib": sum(held), "process": held[0], "environments": sum(held[1:])}
                if updates := _updates(run / "metrics.jsonl"):
                    child.terminate()
                    child.wait()
                    return {**peak, "updates": updates}
                time.sleep(0.1)
        raise SystemExit(f"the run ended early:\n{(Path(folder) / 'log').read_text()}")


def _held(process: psutil.Process) -> float:
    try:
        return process.memory_full_info().pss / MIB
    except psutil.Error:
        return 0.0


def _updates(metrics: Path) -> int:
    """Updates at the end of the stage; 0 before it."""
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return max((int(json.loads(x).get("online/updates", 0)) for x in lines), default=0)


def predict(size: str) -> dict[str, Any]:
    """What `oneiro show` says of the same run."""
    command = [*ONEIRO, "show", *options(size), "--no-time", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    plan = json.loads(answer.stdout)
    return {"mib": plan["ram_gib"] * 1024, **{k: v / MIB for k, v in plan["ram_bytes"].items()}}


def main() -> None:
    """Measure, predict, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="*", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--measure-only", action="store_true", help="leave the predictions as they are")
    wanted = parser.parse_args()
    file = RESULTS.with_suffix(".json")
    rows = json.loads(file.read_text())["sizes"] if file.exists() else {}
    for size in wanted.sizes:
        rows.setdefault(size, {})["measured"] = measure(size)
        file.write_text(json.dumps({"sizes": rows}, indent=1) + "\n")
    if wanted.measure_only:
        return
    lines = ["| size | predicted MiB | measured MiB | predicted / measured |", "|---|---|---|---|"]
    for size in [size for size in STEPS if size in rows]:
        rows[size]["predicted"] = predict(size)
        said, found = rows[size]["predicted"]["mib"], rows[size]["measured"]["mib"]
        rows[size]["ratio"] = said / found
        lines.append(f"| {size} | {said:,.0f} | {found:,.0f} | {said / found:.2f} |")
    about = facts("RAM of DreamerV3: predicted and measured", "python benchmarks/memory.py")
    page = heading(about, "RAM that `oneiro show` predicts against RAM that `oneiro train` takes.")
    write(RESULTS.name, {**about, "sizes": rows}, [*page, "", *lines])
    print("\n".join(lines))


if __name__ == "__main__":
    main()
