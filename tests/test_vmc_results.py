"""The script behind results of World Models, on run folders written by hand."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "cli")]

from synthetic import make_run  # noqa: E402

import vmc_evidence  # noqa: E402
from oneiro import runtime  # noqa: E402


def finish(seed: int) -> None:
    make_run(
        vmc_evidence.ROOT / f"demo-{seed}",
        "toy",
        seed=seed,
        trained=[(100, 1.0)],
        evaluated=[700.0 + seed, 900.0],
        random=[200.0, 210.0],
    )


def test_time_and_memory_of_new_runs_and_none_of_old_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finish(0)
    experiment = vmc_evidence.demo()
    experiment.trials = experiment.trials[:2]
    asked, measured = [], []
    monkeypatch.setattr(vmc_evidence, "oneiro", asked.append)

    def train(words, file):
        measured.append(words)
        file.write_text(json.dumps({"seconds": 300.4, "peak_gib": 1.5}))
        finish(1)

    monkeypatch.setattr(vmc_evidence, "measured", train)
    for trial in experiment.trials:
        vmc_evidence.work(trial)
    assert (asked, measured) == ([experiment.trials[0].command], [experiment.trials[1].command])
    vmc_evidence.tabulate("demo", experiment)
    old, new = json.loads((tmp_path / "results" / "demo.json").read_text())["trials"]
    assert "all_peak_gib" not in old
    assert (new["all_seconds"], new["all_peak_gib"]) == (300.4, 1.5)
    rows = [x for x in (tmp_path / "results" / "demo.md").read_text().splitlines() if x.startswith("|")]
    assert rows[0].endswith("| seconds | with start and stops | peak memory |")
    assert rows[2].endswith("| 10 |  |  |")
    assert rows[3].endswith("| 10 | 300 | 1.50 GiB |")
    assert len({row.count("|") for row in rows}) == 1


def test_results_name_the_compute_dtype(monkeypatch):
    """What commands choose, without choosing it for this process."""
    before = runtime.report()
    known = vmc_evidence.facts("t", "c")["compute dtype, if none is asked for"]
    assert runtime.report() is before
    code = "from oneiro import runtime; print(runtime.start().compute_dtype)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"torch.{known}"
    monkeypatch.setenv("ONEIRO_LEVERS", "-bfloat16")
    assert vmc_evidence.facts("t", "c")["compute dtype, if none is asked for"] == "float32"
