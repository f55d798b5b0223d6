"""Actors that Ray runs: one is killed and replaced; a run that is asked to stop leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from ray_recipe import MARKS, STEPS, slow
from test_collectors import check_streams, logged

from oneiro.data.replay import Replay
from oneiro.training.checkpoint import Checkpoints

pytest.importorskip("ray")
RECIPE = f"{Path(__file__).with_name('ray_recipe.py')}:slow"


class Job:
    """`oneiro train` with two actors, in a process group of its own as a shell would start it."""

    def __init__(self, folder: Path) -> None:
        self.path, self.marks = folder / "run", folder / "marks"
        self.marks.mkdir(exist_ok=True)
        options = f"--schedule.online.actors.num 2 --schedule.online.actors.turns 5 --run {self.path}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "oneiro.cli", "train", RECIPE, *options.split()],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {MARKS: str(self.marks)},
            process_group=0,
        )
        self.family: list[psutil.Process] = []

    def players(self) -> list[int]:
        """Processes that have played for a while, so what they lived through first was stored; the newest last."""
        files = sorted(self.marks.glob("[0-9]*"), key=lambda file: file.stat().st_ctime_ns)
        return [int(file.name) for file in files if int(file.read_text() or 0) >= 60]

    def wait_for(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not what():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.family = [
            *{
                *self.family,
                psutil.Process(self.process.pid),
                *psutil.Process(self.process.pid).children(True),
            }
        ]

    def listens_to(self) -> set[str]:
        """Addresses at which its processes can be reached."""
        connections = [c for p in self.family if p.is_running() for c in p.net_connections()]
        found = {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
        return {address.removeprefix("::ffff:") for address in found}

    def leave(self) -> str:
        """What it said, after it and all it started are gone."""
        said = self.process.communicate(timeout=100)[1]
        assert not psutil.wait_procs(self.family, timeout=5)[1]
        return said


@contextmanager
def started(folder: Path) -> Iterator[Job]:
    job = Job(folder)
    try:
        yield job
    finally:
        job.process.kill()


@pytest.mark.slow
def test_a_killed_actor_is_replaced(tmp_path: Path):
    with started(tmp_path) as job:
        job.wait_for(lambda: len(job.players()) == 2)
        assert job.listens_to() == {"127.0.0.1"}
        os.kill(job.players()[0], signal.SIGKILL)
        job.wait_for(lambda: len(job.players()) == 3)
        (job.marks / "fast").touch()
        said = job.leave()
    assert job.process.returncode == 0, said
    assert "is gone and is started again" in said
    replay = Replay(job.path / "replay", mode="r")
    cut = check_streams(replay)
    assert len({stream % 2 for stream, _ in cut}) == 1  # only what the dead one played
    assert all(0 < row < replay.spans[stream, 1] for stream, row in cut)  # and its successor goes on with
    assert replay.rows == STEPS
    last = logged(job.path)[-1]
    assert last["step"] == STEPS
    assert last["online/crashed"] == 2
    least = slow().schedule.online.updates(STEPS, STEPS // 4)
    assert least < last["online/updates"] <= slow().schedule.online.updates(STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGTERM to the process", "Ctrl-C"])
def test_a_stopped_run_leaves_nothing_behind_and_goes_on(tmp_path: Path, how: str):
    with started(tmp_path) as job:
        job.wait_for(lambda: len(job.players()) == 2)
        began = time.monotonic()
        if how == "Ctrl-C":
            os.killpg(job.process.pid, signal.SIGINT)
        else:
            job.process.terminate()
        said = job.leave()
    seconds = time.monotonic() - began
    print(f"{how}: gone after {seconds:.1f} s")
    assert job.process.returncode == 128 + (signal.SIGINT if how == "Ctrl-C" else signal.SIGTERM)
    assert "stopped and saved" in said
    assert seconds < 20
    saved = Checkpoints(job.path / "checkpoint").load()
    assert saved is not None
    done = saved.state["done"]
    replay = Replay(job.path / "replay", mode="r")
    assert replay.rows == done["steps"] > 0
    assert check_streams(replay) == []
    stops = list(enumerate(replay.spans[:, 1].tolist()))

    (tmp_path / "marks" / "fast").touch()
    with started(tmp_path) as again:
        said = again.process.communicate(timeout=200)[1]
    assert again.process.returncode == 0, said
    replay = Replay(job.path / "replay", mode="r")
    assert replay.rows == STEPS
    assert set(check_streams(replay)) <= set(stops)
    assert logged(job.path)[-1]["online/updates"] == slow().schedule.online.updates(STEPS, done["since"])
