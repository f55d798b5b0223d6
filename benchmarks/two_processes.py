"""Gradients of two processes against those of one with the joint batch: results/two_processes.{md,json}.

    python benchmarks/two_processes.py        # half a minute

The smallest DreamerV3 on pictures, float32, gloo on one machine; noise is fixed by row, so both see the same numbers.
The processes are those of tests/training/test_parallel.py, which holds the errors below 1e-4.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from evidence import facts, heading, last_paragraph, write
from oneiro.training.parallel import Ranks

TESTS = Path(__file__).parents[1] / "tests" / "training"
sys.path.insert(0, str(TESTS))

from parallel_worker import counters, joint_gradients  # noqa: E402

from oneiro.training.recipe import to_json  # noqa: E402
from oneiro.training.run_folder import RunFolder  # noqa: E402


def main() -> None:
    """Run two processes, then one; compare every tensor."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        RunFolder.open(folder / "run", {"values": to_json(counters())}, "two_processes").close()
        env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        worker = [sys.executable, str(TESTS / "parallel_worker.py"), name]
        processes = [subprocess.Popen([*worker, str(i), "2", "first", "35"], env=env) for i in range(2)]
        if any([process.wait() for process in processes]):
            raise SystemExit("a process failed")
        (first, weights), (second, others) = (torch.load(folder / f"equal-{i}.pt") for i in range(2))
        whole = joint_gradients(Ranks(), folder)
    errors = {
        tensor: float((first[tensor] - x).norm() / x.norm().clamp(min=1e-3)) for tensor, x in whole.items()
    }
    gradients = {tensor: e for tensor, e in errors.items() if tensor.startswith("gradient/")}
    worst = max(gradients, key=lambda tensor: gradients[tensor])
    about = facts("Two processes, one batch", "python benchmarks/two_processes.py")
    record = {
        **about,
        "gradient_tensors": len(gradients),
        "largest_relative_error": gradients[worst],
        "in": worst,
        "both_processes_equal_bit_by_bit": all(torch.equal(first[t], second[t]) for t in whole),
        "weights_equal_bit_by_bit_after_4_updates": weights == others,
        "errors": errors,
    }
    shown = {key: about[key] for key in ("title", "command", "commit", "hardware", "torch")}
    lines = heading(shown, last_paragraph(__doc__))
    lines += ["", "| | |", "|---|---|"]
    lines += [
        f"| gradient tensors compared | {len(gradients)} |",
        f"| largest relative error of one (norm of the difference by norm) | {gradients[worst]:.1e}, {worst} |",
        f"| gradients in both processes equal bit by bit | {yes(record['both_processes_equal_bit_by_bit'])} |",
        f"| weights equal bit by bit after four updates, one of them skipped for a NaN in one process | "
        f"{yes(record['weights_equal_bit_by_bit_after_4_updates'])} |",
    ]
    write("two_processes", record, lines)


def yes(true: bool) -> str:
    """For a table."""
    return "yes" if true else "NO"


if __name__ == "__main__":
    main()
