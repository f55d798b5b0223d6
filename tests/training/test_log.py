"""What is logged is what is read, also after a kill, a resume, or a full disk."""

import json
import math
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from oneiro.errors import MissingExtra, OneiroError
from oneiro.training import log as log_module
from oneiro.training.log import LogConfig, MetricsLog, read_metrics
from oneiro.training.run import Run, Stopped
from oneiro.training.run_folder import RunFolder
from oneiro.training.schedule import add_up

PLAIN = LogConfig(tensorboard=False)


def without_time(path: Path) -> list[dict]:
    return [{k: v for k, v in event.items() if k != "time"} for event in read_metrics(path)]


def test_events_and_non_finite_values(tmp_path):
    with MetricsLog(tmp_path, PLAIN) as log:
        log.write(1, {"world/kl": 0.1, "a": torch.tensor(2.0), "b": np.float32(0.5)}, stage="memory")
        log.write(2, {"a": math.nan, "b": math.inf, "c": -math.inf}, stage="memory")
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2  # there before close
    first, second = read_metrics(tmp_path / "metrics.jsonl")
    assert list(first) == ["step", "time", "stage", "world/kl", "a", "b"]
    assert first["world/kl"] == 0.1
    assert (first["step"], first["stage"], first["a"], first["b"]) == (1, "memory", 2.0, 0.5)
    assert math.isnan(second["a"])
    assert (second["b"], second["c"]) == (math.inf, -math.inf)

    def refuse(name):
        raise AssertionError(name)

    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_clash_of_names(tmp_path):
    with MetricsLog(tmp_path, PLAIN) as log, pytest.raises(ValueError, match="'time' clashes"):
        log.write(1, {"time": 1.0}, stage="x")


def test_killed_and_resumed_has_the_lines_of_an_uninterrupted_run(tmp_path):
    def work(log, first, last):
        for step in range(first, last):
            log.write(step, {"loss": 1 / step}, stage="a" if step < 5 else "b")

    with MetricsLog(tmp_path / "straight", PLAIN) as log:
        log.rewind(None)
        work(log, 1, 10)
    log = MetricsLog(tmp_path / "resumed", PLAIN)
    log.rewind(None)
    work(log, 1, 4)
    position = json.loads(json.dumps(log.position()))
    work(log, 4, 8)  # lost: after the checkpoint
    os.write(log._file, b'{"step": 8, "ti')  # and killed in the middle of a line
    os.close(log._file)
    with MetricsLog(tmp_path / "resumed", PLAIN) as log:
        log.rewind(position)
        assert log.seconds >= position["seconds"]
        work(log, 4, 10)
    straight = without_time(tmp_path / "straight" / "metrics.jsonl")
    assert without_time(tmp_path / "resumed" / "metrics.jsonl") == straight
    assert len(straight) == 9
    times = [event["time"] for event in read_metrics(tmp_path / "resumed" / "metrics.jsonl")]
    assert times == sorted(times)


def test_killed_before_the_first_checkpoint(tmp_path):
    with MetricsLog(tmp_path, PLAIN) as log:
        log.write(1, {"a": 1.0}, stage="x")
    with MetricsLog(tmp_path, PLAIN) as log:
        log.rewind(None)
        log.write(1, {"a": 2.0}, stage="x")
    assert [event["a"] for event in read_metrics(tmp_path / "metrics.jsonl")] == [2.0]


@pytest.mark.parametrize("torn", [b'{"step": 2', b"x" * 200_000, b"\x00" * 10])
def test_torn_last_line(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(tmp_path, PLAIN) as log:
        log.write(1, {"a": 1.0}, stage="x")
    with path.open("ab") as file:
        file.write(torn)
    assert [event["step"] for event in read_metrics(path)] == [1]
    with MetricsLog(tmp_path, PLAIN) as log:
        log.write(2, {"a": 1.0}, stage="x")
    assert [event["step"] for event in read_metrics(path)] == [1, 2]


def test_damaged_line_is_left_out_with_a_warning(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\x00\x00\n[]\n{"step": 2}\n')
    with pytest.warns(UserWarning, match="is damaged and left out") as caught:
        assert [event["step"] for event in read_metrics(path)] == [1, 2]
    assert ["line 2 is damaged" in str(caught[0].message), "line 3" in str(caught[1].message)] == [True, True]


def test_lost_lines_are_reported(tmp_path):
    with MetricsLog(tmp_path, PLAIN) as log:
        log.write(1, {"a": 1.0}, stage="x")
        position = log.position()
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    with MetricsLog(tmp_path, PLAIN) as log, pytest.warns(UserWarning, match=r"lost \d+ bytes"):
        log.rewind(position)


def test_disk_full_leaves_whole_lines(tmp_path, monkeypatch):
    real, room = os.write, [20]

    def write(descriptor, data):
        if room[0] == 0:
            raise OSError(28, "No space left on device")
        data = data[: room[0]]
        room[0] -= len(data)
        return real(descriptor, data)

    with MetricsLog(tmp_path, PLAIN) as log:
        log.write(1, {"a": 1.0}, stage="x")
        monkeypatch.setattr(log_module.os, "write", write)
        with pytest.raises(OneiroError, match=r"the disk is full: a line of metrics(.|\n)*Free at least"):
            log.write(2, {"a": 1.0}, stage="x")
        assert (tmp_path / "metrics.jsonl").read_bytes().endswith(b"}\n")
        monkeypatch.undo()
        log.write(2, {"a": 1.0}, stage="x")
    assert [event["step"] for event in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]


def test_tensorboard_per_stage_and_purged_on_resume(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def scalars(stage):
        accumulator = events.EventAccumulator(str(tmp_path / "tensorboard" / stage))
        accumulator.Reload()
        return [(e.step, e.value) for e in accumulator.Scalars("loss")]

    with MetricsLog(tmp_path) as log:
        log.write(1, {"loss": 0.5, "bad": math.nan}, stage="a")
        log.write(2, {"loss": 0.25}, stage="a")
        log.write(1, {"loss": 8.0}, stage="b/2")
        position = log.position()
        log.write(2, {"loss": 99.0}, stage="b/2")
        log.write(3, {"loss": 99.0}, stage="b/2")
        log.write(1, {"loss": 99.0}, stage="c")
    with MetricsLog(tmp_path) as log:
        log.rewind(position)
        log.write(2, {"loss": 4.0}, stage="b/2")
        log.write(1, {"loss": 1.0}, stage="c")
    assert scalars("a") == [(1, 0.5), (2, 0.25)]
    assert scalars("b/2") == [(1, 8.0), (2, 4.0)]
    assert scalars("c") == [(1, 1.0)]


class Recorder(types.ModuleType):
    """Stands in for a service: remembers every call."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def __getattr__(self, name):
        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            return self

        return call


def test_wandb(tmp_path, monkeypatch):
    fake = Recorder("wandb")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    path = tmp_path / "my-run"
    with RunFolder.open(path, {"a": 1}, "x") as run, MetricsLog(path, LogConfig(wandb=True)) as log:
        log.write(5, {"loss": 0.5}, stage="memory")
        log.write(6, {"loss": 0.4}, stage="memory")
    assert fake.calls == [
        (
            "init",
            (),
            {
                "project": "oneiro",
                "name": "my-run",
                "id": run.id,
                "config": {"a": 1},
                "dir": str(path),
                "resume": "allow",
            },
        ),
        ("define_metric", ("memory/step",), {}),
        ("define_metric", ("memory/*",), {"step_metric": "memory/step"}),
        ("log", ({"memory/step": 5, "memory/loss": 0.5},), {}),
        ("log", ({"memory/step": 6, "memory/loss": 0.4},), {}),
        ("finish", (), {}),
    ]


def test_trackio(tmp_path, monkeypatch):
    fake = Recorder("trackio")
    monkeypatch.setitem(sys.modules, "trackio", fake)
    with MetricsLog(tmp_path / "r", LogConfig(tensorboard=False, trackio=True, project="p")) as log:
        log.write(5, {"loss": 0.5, "bad": math.nan}, stage="memory")
    assert fake.calls == [
        ("init", (), {"project": "p", "name": "r", "config": {}, "resume": "allow"}),
        ("log", ({"memory/loss": 0.5},), {"step": 5}),
        ("finish", (), {}),
    ]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_missing_extra_names_the_pip_command(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'oneiro\[{name}\]'"):
        MetricsLog(tmp_path, LogConfig(tensorboard=False, **{name: True}))


def test_a_run_that_is_left_ends_its_log(tmp_path, monkeypatch):
    fake = Recorder("wandb")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    ended = []
    with RunFolder.open(tmp_path / "run", {"a": 1}, "x"):
        run = Run.__new__(Run)
        run.log = MetricsLog(tmp_path / "run", LogConfig(tensorboard=False, wandb=True))
        monkeypatch.setattr(run.log.sinks[0], "close", lambda: ended.append(True))
        with pytest.raises(Stopped), run:
            raise Stopped
    assert ended == [True]


def test_sums_of_metrics_are_wide_where_the_device_allows_it():
    sums: dict[str, torch.Tensor] = {}
    for loss in (2.0**25, 1.0):  # 2^25 + 1 is no float32
        add_up(sums, {"loss": torch.tensor(loss)})
    assert sums["loss"].item() == 2**25 + 1
    assert sums["count"].item() == 2
    assert {x.dtype for x in sums.values()} == {torch.float64}

    class Apple:
        device = torch.device("mps")

        def to(self, dtype):
            return torch.ones((), dtype=dtype)

    sums = {}
    add_up(sums, {"loss": Apple(), "time/update": torch.ones(())})  # pyright: ignore[reportArgumentType]
    assert {x.dtype for x in sums.values()} == {torch.float32}
