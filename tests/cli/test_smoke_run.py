"""The smallest DreamerV3 from the command line: stopped half way, resumed, evaluated."""

import json
from pathlib import Path

import pytest
from calling import oneiro

from oneiro.training.log import read_metrics
from oneiro.training.online import Online

OPTIONS = ("--size", "smoke", "--env.workers", "sync", "--env.num", "2", "--quiet")
SINCE = {"dreamerv3-gym": 64 + 2 * 16, "dreamerv3-2023-gym": 64}
"""The step with which learning begins: 4 x 16 items of 17 rows in 2 streams; the end of the random play."""


@pytest.mark.parametrize("recipe", SINCE)
def test_a_smoke_run_stops_resumes_and_is_evaluated(recipe: str, tmp_path: Path, monkeypatch):
    run, tick, turns = tmp_path / "run", Online.run, []

    def interrupted(stage: Online, of):
        old = of.tick

        def counted(save: bool = True) -> None:
            turns.append(save)
            of.stop.requested = of.stop.requested or len(turns) == 60
            old(save)

        of.tick = counted
        tick(stage, of)

    monkeypatch.setattr(Online, "run", interrupted)
    stopped = oneiro("train", recipe, *OPTIONS, "--run", run)
    assert stopped.code == 130, stopped.err
    assert "stopped and saved" in stopped.err
    done = oneiro("train", recipe, *OPTIONS, "--run", run)
    assert done.code == 0, done.err
    assert "random" in done.out
    (last,) = [
        row for row in read_metrics(run / "metrics.jsonl") if row["step"] == 400 and "online/updates" in row
    ]
    items = 4 * 16
    assert last["online/updates"] == 1 + (400 - SINCE[recipe]) * 16 // items
    assert last["guard/skipped"] == 0
    scores = json.loads((run / "scores" / "real.json").read_text())
    assert len(scores["score"]) == 2
