"""Actors that Ray runs: one is killed, the run is stopped, and goes on without them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from ray_recipe import MARKS, slow
from test_collectors import check_streams, logged

from oneiro.cli.main import main
from oneiro.data.replay import Replay
from oneiro.training.checkpoint import Checkpoints

pytest.importorskip("ray")
RECIPE = f"{Path(__file__).with_name('ray_recipe.py')}:slow"


def wait_for(what: Callable[[], bool], job: subprocess.Popen, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert job.poll() is None, job.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_actor_is_replaced_and_the_run_stops_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, marks = tmp_path / "run", tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv(MARKS, str(marks))
    command = [sys.executable, "-m", "oneiro.cli", "train", RECIPE, "--run", str(path)]
    actors = ["--schedule.online.actors.num", "2", "--schedule.online.actors.turns", "5"]
    job = subprocess.Popen([*command, *actors], stderr=subprocess.PIPE, text=True)
    family = []

    def players() -> list[int]:
        """Processes that have played for a while: what they lived through first was stored."""
        return [int(file.name) for file in marks.iterdir() if int(file.read_text() or 0) >= 60]

    try:
        wait_for(lambda: len(players()) == 2, job)
        family = psutil.Process(job.pid).children(recursive=True)
        open_to = {c.laddr.ip for p in family for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
        assert {address.removeprefix("::ffff:") for address in open_to} == {"127.0.0.1"}
        os.kill(players()[0], signal.SIGKILL)
        wait_for(lambda: len(players()) == 3, job)
        family = psutil.Process(job.pid).children(recursive=True)
        began = time.monotonic()
        job.send_signal(signal.SIGTERM)
        said = job.communicate(timeout=60)[1]
    finally:
        job.kill()
    assert "stopped and saved" in said
    assert job.returncode == 128 + signal.SIGTERM
    assert "is gone and is started again" in said
    assert time.monotonic() - began < 20
    assert not psutil.wait_procs(family, timeout=5)[1]

    replay = Replay(path / "replay", mode="r")
    spans = replay.spans.tolist()
    cut = check_streams(replay)
    assert len({stream % 2 for stream, _ in cut}) == 1  # only what the dead one played
    assert all(0 < row < spans[stream][1] for stream, row in cut)  # and its successor goes on with
    saved = Checkpoints(path / "checkpoint").load()
    assert saved is not None
    done = saved.state["done"]
    assert done["crashed"] == 2
    assert sum(stop for _, stop in spans) == done["steps"]

    (marks / "fast").touch()
    assert main([*command[3:], "--quiet"]) == 0
    replay = Replay(path / "replay", mode="r")
    assert replay.rows in (5_000, 5_002)  # two rows a turn, then four
    stopped = [(stream, stop) for stream, (_, stop) in enumerate(spans)]
    assert set(cut) <= set(check_streams(replay)) <= {*cut, *stopped}
    assert logged(path)[-1]["online/updates"] == slow().schedule.online.updates(replay.rows, done["since"])
