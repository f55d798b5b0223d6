"""The script behind learning-curve results, on run folders written by hand."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "cli")]

from synthetic import RECIPES, make_run  # noqa: E402

import evidence  # noqa: E402
import learning  # noqa: E402


def run_script(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["learning.py", *map(str, words)])
    learning.main()


def test_results_of_finished_and_unfinished_runs(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        trained = [(step, step / 100 + seed) for step in range(50, 1001, 50)]
        where = tmp_path / "runs" / "learning" / f"mine-{seed}"
        make_run(
            where, "toy", seed=seed, trained=trained, evaluated=[9.0 + seed, 11.0 + seed], random=[1.0, 2.0]
        )
    make_run(tmp_path / "runs" / "learning" / "mine-2", "toy", seed=2, trained=[(300, 4.0)])
    run_script(
        monkeypatch, "mine", "--run", f"toy: {RECIPES}:toy", "--seeds", 3, "--peer", "PPO=8", "--report-only"
    )
    record = json.loads((tmp_path / "results" / "mine.json").read_text())
    assert record["references"] == {"random policy, measured": 1.5, "PPO": 8.0}
    assert [row["training_score"] for row in record["runs"]] == [9.75, 10.75, 4.0]
    assert [row["finished"] for row in record["runs"]] == [True, True, False]
    assert record["runs"][1]["evaluation"]["mean"] == 11.0
    assert record["curves"]["toy"]["frame"][-1] == 300  # as far as the slowest run
    text = (tmp_path / "results" / "mine.md").read_text()
    assert "| **toy, 2 seeds** | 10.2 ± 0.7" in text
    assert "not finished" in text
    assert "| PPO | | 8.00 |" in text
    assert "toy, 3 runs" in (tmp_path / "results" / "mine.svg").read_text()


def test_nothing_is_overwritten_by_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="left as they are"):
        run_script(monkeypatch, "mine", "--run", f"{RECIPES}:toy", "--report-only")
    assert not (tmp_path / "results").exists()
    with pytest.raises(SystemExit, match="unknown experiment"):
        run_script(monkeypatch, "nothing")


def test_time_and_memory_add_up_over_stops(tmp_path, monkeypatch):
    file = tmp_path / "usage.json"
    code = "import time; x = bytearray(60 << 20); time.sleep(0.6)"
    monkeypatch.setattr(evidence, "_python", lambda words: [sys.executable, "-c", code])
    evidence.measured(["train"], file, every=0.05)
    first = evidence.read_usage(file)
    assert 0.06 < first["peak_gib"] < 1
    assert first["seconds"] >= 0.6
    evidence.measured(["train"], file, every=0.05)
    assert evidence.read_usage(file)["seconds"] >= first["seconds"] + 0.6


def test_commands_are_those_a_user_would_type():
    experiment = learning.Experiment(
        title="t", commands={"a": "dreamerv3-gym --size cpu --env.id X", "b": "dreamerv3-gym"}
    )
    one, two = experiment.trials("mine", [4])
    assert (
        " ".join(one.command)
        == "train dreamerv3-gym --size cpu --seed 4 --run runs/learning/mine-0-4 --env.id X"
    )
    assert " ".join(two.command) == "train dreamerv3-gym --size 12m --seed 4 --run runs/learning/mine-1-4"
