"""How long dreams stay true, for finished runs: films and PSNR by step in results/dreams_NAME.{md,json,webp}.

    python benchmarks/dream_quality.py dreamerv3 runs/learning/minigrid-0 runs/learning/pacman-0

Each run sees some real rows of stored episodes, then dreams on with the recorded actions only. The film shows truth,
dream and difference of two of them.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from evidence import RESULTS, facts, heading, last_paragraph, write

STEPS = (0, 1, 2, 5, 10, 15, 30, 45, 60, 100)


def dreamed(run: Path, own: argparse.Namespace) -> dict[str, Any]:
    """What `oneiro dream` says of a run."""
    words = ["dream", str(run), "--context", str(own.context), "--horizon", str(own.horizon)]
    words += ["--episodes", str(own.episodes), "--json"]
    command = [sys.executable, "-m", "oneiro.cli", *words]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {"command": "oneiro " + " ".join(words), **json.loads(answer)}


def main() -> None:
    """Dream with each, write one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="of the result")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--context", type=int, default=5, help="real rows before a dream")
    parser.add_argument("--horizon", type=int, default=45, help="dreamed steps")
    parser.add_argument("--episodes", type=int, default=16, help="that are averaged")
    own = parser.parse_args()
    name = f"dreams_{own.name}"
    about = facts("How long dreams stay true", "python benchmarks/dream_quality.py " + " ".join(sys.argv[1:]))
    shown = [t for t in STEPS if t <= own.horizon]
    lines = [
        *heading(about, last_paragraph(__doc__)),
        f"- PSNR in dB of the mean squared error over {own.episodes} episodes (those long enough); step 0 is the "
        "world's picture of the last real row; 'held' is that real row, kept",
        "",
        "| run | | " + " | ".join(f"step {t}" for t in shown) + " |",
        "|---" * (len(shown) + 2) + "|",
    ]
    record: dict[str, Any] = {**about, "runs": {}}
    for run in own.runs:
        found = dreamed(run, own)
        film = RESULTS / f"{name}_{run.name}.webp"
        shutil.copyfile(found.pop("film"), film)
        record["runs"][run.name] = {**found, "film": film.name}
        for label, curve in (("dream", found["psnr"]), ("held", found["held_psnr"])):
            cells = " | ".join("" if label == "held" and t == 0 else f"{curve[t]:.1f}" for t in shown)
            lines.append(f"| {run.name} | {label} | {cells} |")
    lines += [f"\n![Truth, dream and difference, {run.name}]({name}_{run.name}.webp)" for run in own.runs]
    lines += ["", "```", *(each["command"] for each in record["runs"].values()), "```"]
    write(name, record, lines)


if __name__ == "__main__":
    main()
