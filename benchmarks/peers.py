"""DreamerV3 of sheeprl and of torchrl against ours, by turns in one run: results/peers.{md,json}.

    python benchmarks/peers.py --sheeprl PYTHON --torchrl PYTHON        # an hour on two cores; leave one out at will
    python benchmarks/peers.py --sheeprl PYTHON --sizes 1m --only "act 1" --seconds 1 --rounds 1     # a try

PYTHON is that of a virtual environment with the peer in it, whose requirements would get in the way of ours:

    python -m venv sheeprl && sheeprl/bin/pip install torch==2.13.0 && sheeprl/bin/pip install sheeprl==0.8.4
    python -m venv torchrl && torchrl/bin/pip install torch==2.13.0 && torchrl/bin/pip install torchrl==0.14.1

Take torch from a CPU index where there is no GPU, otherwise pip brings gigabytes of CUDA. Nothing else should run.

Each peer is timed twice: as it comes, and with what helps it without touching its code (freed memory
kept, float32 products through oneDNN, and sheeprl's bfloat16 autocast), which is what ours does by itself.

All take batch 16 x 64, horizon 15, pictures of 64 x 64 x 3 and 7 actions, at the same widths. What differs:

- sheeprl (`dreamer_v3_5`, the paper's networks): an update has one row more in each sequence, from which its state is
  taken; a dream also computes values and returns. Its 1 % of uniform in policies is switched off, as in ours.
- torchrl (parts put together in peer_torchrl.py): convolutions of stride 2, transposed ones in the decoder, where the
  paper has full convolutions with pooling and enlarging. These are a fraction of the multiplications: compare its
  updates and its acting with that in mind, its dreams (which hold no convolution) freely. One layer reads z and
  action together; the decoder reads h and z in blocks alike, and its pictures have no sigmoid.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evidence import facts, write
from oneiro import runtime
from oneiro.bench import dreamer
from oneiro.bench.rival import Rival
from oneiro.bench.work import Work
from oneiro.recipes.dreamerv3 import dreamerv3_minigrid
from oneiro.training.online import Online
from oneiro.training.recipe import build_agent
from oneiro.training.schedule import stages

HERE = Path(__file__).parent
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "2147483647", "MALLOC_TOP_PAD_": "67108864"}
FORMS: dict[str, dict[str, tuple[dict[str, str], dict[str, str]]]] = {
    "sheeprl": {
        "as it comes": ({}, {"matmul": "high", "precision": "32-true"}),
        "helped": (KEPT, {"matmul": "medium", "precision": "bf16-mixed"}),
    },
    "torchrl": {
        "as it comes": ({}, {"matmul": "highest"}),
        "helped": (KEPT, {"matmul": "medium"}),
    },
}
"""Peer -> form -> variables of its process, and settings that its script takes with the shapes."""


def main() -> None:
    """Measure what is asked for and write all of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in FORMS:
        parser.add_argument(f"--{name}", metavar="PYTHON", help=f"the Python that has {name}")
    parser.add_argument("--sizes", nargs="+", default=["1m", "12m"])
    parser.add_argument("--only", nargs="+", metavar="WORK", default=["update", "dream", "act 1", "act 16"])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each turn, at least one repetition")
    parser.add_argument("--rounds", type=int, default=3, help="turns of ours and of the peer")
    parser.add_argument("--name", default="peers", help="results/NAME.json and .md")
    own = parser.parse_args()
    pythons = {name: python for name in FORMS if (python := getattr(own, name))}
    if not pythons:
        parser.error("give the Python of at least one peer")
    words = [f"--{name} PYTHON" for name in pythons] + ["--sizes", *own.sizes, "--only", *map(repr, own.only)]
    command = f"python benchmarks/peers.py {' '.join(words)} --seconds {own.seconds:g} --rounds {own.rounds}"
    record = facts("DreamerV3: PyTorch peers", command)
    record["sizes"] = {size: compared(size, pythons, own) for size in own.sizes}
    write(own.name, record, lines(record))


def compared(size: str, pythons: dict[str, str], own: argparse.Namespace) -> dict[str, Any]:
    """Everything at one size."""
    recipe = dreamerv3_minigrid(size)  # type: ignore[arg-type]
    report = runtime.start(recipe.runtime)
    agent = build_agent(recipe, recipe.env.spaces()).to(report.device)
    stage = next(stage for _, stage in stages(recipe.schedule) if isinstance(stage, Online))
    plain = dreamer.rival(recipe, agent, stage)
    assert plain is not None
    learned = sum(p.numel() for p in agent.parameters() if p.requires_grad)
    found: dict[str, Any] = {"parameters": learned, "peers": {}}
    with tempfile.TemporaryDirectory() as folder:
        works = [w for w in dreamer.works(recipe, agent, stage, Path(folder)) if w.name in own.only]
        for work in works:
            work.call()
        for peer, python in pythons.items():
            script = HERE / f"peer_{peer}.py"
            for form, (environment, settings) in FORMS[peer].items():
                shapes = {**plain.shapes, "name": size, **settings}
                entry = found["peers"].setdefault(peer, {"about": about(python, script, shapes), "forms": {}})
                with Rival(script, shapes, report.device, python=python, environment=environment) as rival:
                    for work in works:  # it starts up and warms up before anything is timed
                        rival.ask(work.name, 0.0)
                    entry["forms"][form] = turns(works, rival, own.seconds, own.rounds)
    return found


def about(python: str, script: Path, shapes: dict[str, Any]) -> dict[str, Any]:
    """Versions and number of parameters that are learned, as the peer says itself."""
    answer = subprocess.run(
        [python, str(script), json.dumps(shapes)], capture_output=True, text=True, env=os.environ, check=False
    )
    if answer.returncode:
        raise SystemExit(f"{script.name} failed with {python}:\n{answer.stderr}")
    return json.loads(answer.stdout.splitlines()[-1])


def turns(works: Sequence[Work], rival: Rival, seconds: float, rounds: int) -> dict[str, Any]:
    """By work: seconds of all repetitions of both, and the ratio of the medians of each round."""
    found: dict[str, Any] = {}
    for _ in range(rounds):
        for work in works:
            what = {"shape": work.shape, "unit": work.unit, "amount": work.amount}
            entry = found.setdefault(work.name, {**what, "ours": [], "peer": [], "ratios": []})
            mine = timed(work, seconds)
            theirs = rival.ask(work.name, seconds)
            entry["ours"] += mine
            entry["peer"] += theirs
            entry["ratios"].append(statistics.median(theirs) / statistics.median(mine))
    return found


def timed(work: Work, seconds: float) -> list[float]:
    """Seconds of repetitions that together last so long."""
    times: list[float] = []
    while sum(times) < seconds:
        began = time.perf_counter()
        work.call()
        times.append(time.perf_counter() - began)
    return times


def lines(record: dict[str, Any]) -> list[str]:
    """The page."""
    said = (__doc__ or "").strip().split("\n\n")
    found = [f"# {record['title']}", "", "\n\n".join(said[-3:]), ""]
    names = ("command", "commit", "hardware", "compute dtype, if none is asked for", "torch")
    found += [f"- {name}: {record[name]}" for name in names]
    for size, entry in record["sizes"].items():
        found += ["", f"## Size {size}", "", f"Parameters: ours {entry['parameters']:,}"]
        for peer, own in entry["peers"].items():
            found[-1] += f"; {peer} {own['about']['version']} {own['about']['parameters']:,}"
        found += ["", "| what | shape | peer | ours | peer's | ratio (range) |", "|---|---|---|---|---|---|"]
        for peer, own in entry["peers"].items():
            for form, works in own["forms"].items():
                found += [row(name, f"{peer}, {form}", work) for name, work in works.items()]
    return found


def row(name: str, peer: str, work: dict[str, Any]) -> str:
    """Rates by the median, and how many times ours is the faster one."""
    rates = [work["amount"] / statistics.median(work[who]) for who in ("ours", "peer")]
    ours, theirs = (f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}" for rate in rates)
    ratios = work["ratios"]
    spread = f"**{statistics.median(ratios):.2f}x** ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"| {name} | {work['shape']} | {peer} | {ours} {work['unit']} | {theirs} | {spread} |"


if __name__ == "__main__":
    main()
