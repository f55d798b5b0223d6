"""Several processes train one run: the same gradients, the same weights, one checkpoint for any number of them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from parallel_worker import counters, joint_gradients, train, two_stages
from test_online import check_rows

from oneiro.data import stream_folder
from oneiro.data.replay import Replay
from oneiro.data.replay_episodes import ReplayEpisodes
from oneiro.data.share import Share, interleave
from oneiro.errors import OneiroError
from oneiro.training.log import read_metrics
from oneiro.training.parallel import Ranks
from oneiro.training.recipe import to_json
from oneiro.training.run_folder import RunFolder

WORKER = Path(__file__).with_name("parallel_worker.py")


def job(folder: Path, task: str, looks: int = 0, count: int = 2) -> None:
    """Run a task in `count` processes."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    arguments = [[str(folder), str(index), str(count), task, str(looks)] for index in range(count)]
    processes = [
        subprocess.Popen([sys.executable, str(WORKER), *a], env=env, stderr=subprocess.PIPE, text=True)
        for a in arguments
    ]
    said = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, "\n".join(said)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes made updates of DreamerV3, and trained a run until the last one was asked to stop."""
    folder = tmp_path_factory.mktemp("parallel")
    RunFolder.open(folder / "run", {"values": to_json(counters())}, "test").close()
    job(folder, "first", 35)
    return folder


def test_two_processes_equal_one_with_the_joint_batch(folder: Path):
    (first, weights), (second, others) = (torch.load(folder / f"equal-{i}.pt") for i in range(2))
    whole = joint_gradients(Ranks(), folder)
    assert first.keys() == whole.keys()
    assert sum(name.startswith("gradient/") for name in whole) > 40
    for name, expected in whole.items():
        assert torch.equal(first[name], second[name]), name
        error = (first[name] - expected).norm() / expected.norm().clamp(min=1e-3)
        assert error < 1e-4, (name, error)
    assert whole["high"] - whole["low"] > 1.5  # so that the scale of returns matters
    assert weights == others  # bit by bit, and skipped by both where the rows of one held NaN
    *seen, skipped = weights
    assert skipped == "1"
    assert len(set(seen)) == len(seen)  # the slow critic follows even then


def test_a_run_goes_on_with_another_number_of_processes(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """2 -> 1 -> 2 processes, stopped by the last one each time; rows, latents, ids and the ratio stay exact."""
    monkeypatch.setattr(stream_folder, "LARGEST", 32)
    path = folder / "run"
    cut, ends = [], []
    alone = train(Ranks(), path, 50)
    job(folder, "again")
    for said in ((folder / "first-0.txt").read_text(), alone):
        word, steps, _ = said.split()
        assert word == "stopped"
        cut.append(int(steps) // 4)
        ends.append(int(steps))
    assert 0 < ends[0] < ends[1] < 240
    for task in ("first", "again"):
        first, second = ((folder / f"{task}-{i}.txt").read_text() for i in range(2))
        assert first == second
    assert first.startswith("done")
    replay = Replay(path / "replay", mode="r")
    assert [stop for _, stop in replay.spans.tolist()] == [60] * 4
    check_rows(replay, tuple(cut))
    lines = read_metrics(path / "metrics.jsonl")
    logged = [line for line in lines if "online/updates" in line]
    assert [line["step"] for line in logged] == [60, 120, 180, 240]
    assert logged[-1]["replay/rows"] == 240
    since = 4 * 16  # 32 items of 9 rows in 4 streams
    assert [x["online/updates"] for x in logged] == [0, *(1 + (s - since) // 4 for s in (120, 180, 240))]
    episodes = ReplayEpisodes(replay)
    assert len(set(episodes.ids.tolist())) == len(episodes)
    played = [int(line["episode/length"]) + 1 for line in lines if "episode/score" in line]
    whole = [
        n for i, n in zip(episodes.ids, episodes.lengths, strict=True) if "abandoned" not in episodes.info(i)
    ]
    assert sorted(played) == sorted(whole)


def content(path: Path) -> dict[str, bytes]:
    """Of every file of a run folder."""
    return {f.relative_to(path).as_posix(): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def test_a_number_of_processes_that_cannot_share_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """1 process, stopped -> 3, which say why not and change nothing -> 2 that go on to the end."""
    monkeypatch.setattr(stream_folder, "LARGEST", 32)
    path = tmp_path / "run"
    RunFolder.open(path, {"values": to_json(counters())}, "test").close()
    word, steps, _ = train(Ranks(), path, 50).split()
    assert word == "stopped"
    before = content(path)
    job(tmp_path, "refused", count=3)
    said = {(tmp_path / f"refused-{i}.txt").read_text() for i in range(3)}
    assert len(said) == 1
    assert "env.num is 4, which 3 processes cannot share evenly" in said.pop()
    assert content(path) == before
    job(tmp_path, "again")
    first, second = ((tmp_path / f"again-{i}.txt").read_text() for i in range(2))
    assert first == second
    assert first.startswith("done")
    replay = Replay(path / "replay", mode="r")
    assert [stop for _, stop in replay.spans.tolist()] == [60] * 4
    check_rows(replay, (int(steps) // 4,))


def test_a_stage_of_the_first_process_ends_with_equal_weights(tmp_path: Path):
    RunFolder.open(tmp_path / "run", {"values": to_json(two_stages())}, "test").close()
    job(tmp_path, "alone")
    first, second = ((tmp_path / f"alone-{i}.txt").read_text() for i in range(2))
    assert first == second
    assert first.startswith("done")
    fits = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["stage"] == "fit"]
    assert [line["step"] for line in fits] == [3]


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(
        OneiroError, match=r"env\.num is 3, which 2 processes cannot share .* \(--env\.num 4\)"
    ):
        Ranks(count=2).split(3, "env.num")
    assert Ranks(count=2).split(6, "env.num") == 3


def test_streams_are_dealt_out():
    everything = list(range(7))
    shares = [Share(index, 3) for index in range(3)]
    assert interleave([share.of(everything) for share in shares]) == everything
    items = [[stream, 10 * stream] for stream in everything]
    assert [share.outside(share.inside(items)) for share in shares] == [
        [items[i] for i in everything[index::3]] for index in range(3)
    ]


def test_a_process_alone_sends_nothing():
    ranks = Ranks()
    assert ranks.sum(3, 4) == (3, 4)
    assert ranks.any(True, False) == (True, False)
    assert ranks.gather("x") == ["x"]
    x = torch.ones(2)
    assert ranks.mean([x])[0] is x


def torchrun(path: Path, count: int, steps: int) -> subprocess.Popen:
    """The command line of the documentation, with the smallest DreamerV3 on CartPole."""
    options = (
        f"--size smoke --env.id CartPole-v1 --env.num 4 --schedule.online.steps {steps} --runtime.threads 1"
    )
    options += f" --schedule.evaluate.episodes 2 --checkpoint.minutes 0.02 --run {path}"
    launcher = f"-m torch.distributed.run --standalone --nproc-per-node {count} -m -- oneiro train"
    env = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *launcher.split(), "dreamerv3-gym", *options.split()]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def wait_for_checkpoint(path: Path, after: set[Path], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 200
    while not set(path.glob("checkpoint/0*")) - after:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_ends_the_job_and_the_run_goes_on(tmp_path: Path):
    """SIGKILL of rank 1; SIGTERM; to the end: with 2, 1 and 2 processes."""
    path = tmp_path / "run"
    job = torchrun(path, 2, 600)
    wait_for_checkpoint(path, set(), job)
    workers = psutil.Process(job.pid).children()
    victim = next(w for w in workers if w.environ()["RANK"] == "1")
    victim.kill()
    began = time.monotonic()
    _, gone = psutil.wait_procs(workers, timeout=60)
    seconds = time.monotonic() - began
    said = job.communicate(timeout=60)[1]
    assert not gone
    assert "another process of this job has ended" in said
    assert job.returncode != 0

    job = torchrun(path, 1, 600)
    wait_for_checkpoint(path, set(path.glob("checkpoint/0*")), job)
    began = time.monotonic()
    job.send_signal(signal.SIGTERM)
    said = job.communicate(timeout=60)[1]
    saved = time.monotonic() - began
    assert "stopped and saved" in said

    job = torchrun(path, 2, 600)
    said = job.communicate(timeout=300)[1]
    assert job.returncode == 0, said
    lines = [line for line in read_metrics(path / "metrics.jsonl") if "online/updates" in line]
    first = [line["online/updates"] for line in lines]
    assert lines[-1]["step"] == 600
    assert first == sorted(first)
    print(f"others gone {seconds:.1f} s after the kill, job left {saved:.1f} s after SIGTERM")
    assert seconds < 30
    assert saved < 30
