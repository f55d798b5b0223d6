"""One writer at a time, one recipe per folder, nobody's files touched."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from oneiro.cli.train import FREE
from oneiro.errors import OneiroError
from oneiro.training.run_folder import ABSENT, RunFolder, diff

RECIPE = {"world": {"z_dim": 32, "kl": float("inf")}, "stages": [{"n": 1}, {"n": 2}], "log": {"wandb": False}}


def begin(path: Path) -> None:
    with RunFolder.open(path, RECIPE, "oneiro train x") as run:
        run.metrics.write_text("{}\n")


def test_a_run_that_failed_before_its_first_event_can_be_mended(tmp_path):
    other = {**RECIPE, "world": {"z_dim": 64}}
    RunFolder.open(tmp_path, RECIPE, "oneiro train x --env.id Wrong-v0").close()
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "replay").mkdir()
    with RunFolder.open(tmp_path, other, "oneiro train x --env.id Right-v0") as run:
        assert run.recipe == other
        (tmp_path / "replay" / "rows").write_bytes(b"0")
    with pytest.raises(OneiroError, match="of another recipe"):
        RunFolder.open(tmp_path, RECIPE, "oneiro train x")


def test_diff_names_leaves():
    new = {"world": {"z_dim": 64, "kl": float("inf"), "h": 1}, "stages": [{"n": 1}], "log": {"wandb": 0}}
    assert diff(RECIPE, new) == {
        "world.z_dim": (32, 64),
        "world.h": (ABSENT, 1),
        "stages.1.n": (2, ABSENT),
        "log.wandb": (False, 0),
    }
    assert diff(RECIPE, json.loads(json.dumps(RECIPE).replace("Infinity", '"Infinity"'))) == {}
    assert diff({"a": (1, float("nan"))}, {"a": [1.0, float("nan")]}) == {}


def test_a_new_folder_and_its_resume(tmp_path):
    path = tmp_path / "runs" / "one"
    with RunFolder.open(path, RECIPE, "oneiro train x --seed 1") as run:
        identity = run.id
        launch = run.launches[0]
        assert launch["command"] == "oneiro train x --seed 1"
        assert launch["torch"].startswith("2.")
        assert launch["python"] == ".".join(map(str, sys.version_info[:3]))
        assert launch["host"] == socket.gethostname()
    with RunFolder.open(path, RECIPE, "again") as run:
        assert run.id == identity
        assert [launch["command"] for launch in run.launches] == ["oneiro train x --seed 1", "again"]
    seen = RunFolder.read(path)
    assert seen.recipe["world"] == {"z_dim": 32, "kl": "Infinity"}
    assert seen.checkpoint == path / "checkpoint"
    assert seen.metrics == path / "metrics.jsonl"
    assert (seen.replay.name, seen.video.name, seen.report.name) == ("replay", "video", "report.html")


def test_another_recipe_is_refused_and_nothing_changes(tmp_path):
    begin(tmp_path)
    before = (tmp_path / "recipe.json").read_bytes()
    other = {**RECIPE, "world": {"z_dim": 64, "kl": float("inf")}, "log": {"wandb": True}}
    with pytest.raises(OneiroError) as error:
        RunFolder.open(tmp_path, other, "x")
    assert "log.wandb: False there, True now" in str(error.value)
    assert "world.z_dim: 32 there, 64 now" in str(error.value)
    assert "--run" in str(error.value)
    assert (tmp_path / "recipe.json").read_bytes() == before
    begin(tmp_path)  # and the lock was released


def test_free_fields_may_change(tmp_path):
    begin(tmp_path)
    other = {**RECIPE, "log": {"wandb": True}}
    with RunFolder.open(tmp_path, other, "x", free=("log",)) as run:
        assert run.recipe["log"] == {"wandb": True}
    assert RunFolder.read(tmp_path).recipe["log"] == {"wandb": True}
    with pytest.raises(OneiroError, match="another recipe"):
        RunFolder.open(tmp_path, RECIPE, "x", free=("lo", "log.wan"))


def test_what_error_messages_tell_to_change_may_be_changed(tmp_path):
    old = {
        "env": {"num": 2, "processes": 1, "timeout": 9.0, "max_crashes": 5},
        "data": {"ram": 1.0, "capacity": 9},
    }
    new = {
        "env": {"num": 4, "processes": 2, "timeout": 1.0, "max_crashes": 9},
        "data": {"ram": 2.0, "capacity": 5},
    }
    with RunFolder.open(tmp_path, {"values": old}, "oneiro train x") as run:
        run.metrics.write_text("{}\n")
    with RunFolder.open(tmp_path, {"values": new}, "oneiro train x", FREE) as run:
        assert run.recipe == {"values": new}


def test_newer_format(tmp_path):
    begin(tmp_path)
    content = json.loads((tmp_path / "recipe.json").read_text())
    content |= {"format": 2, "launches": [{"oneiro": "9.0"}]}
    (tmp_path / "recipe.json").write_text(json.dumps(content))
    for action in (lambda: RunFolder.open(tmp_path, RECIPE, "x"), lambda: RunFolder.read(tmp_path)):
        with pytest.raises(OneiroError, match=r"newer oneiro \(9.0.*pip install --upgrade oneiro"):
            action()


def test_damaged_recipe(tmp_path):
    begin(tmp_path)
    whole = (tmp_path / "recipe.json").read_bytes()
    for damaged in (whole[:40], b"", b"[]", b'{"format": 1}', b"\xff\xfe"):
        (tmp_path / "recipe.json").write_bytes(damaged)
        with pytest.raises(OneiroError, match=r"recipe.json is damaged(.|\n)*--run"):
            RunFolder.open(tmp_path, RECIPE, "x")


def test_somebody_elses_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(OneiroError, match=r"not a run folder.*thesis.tex.*--run"):
        RunFolder.open(tmp_path, RECIPE, "x")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(OneiroError, match="is a file"):
        RunFolder.open(tmp_path / "thesis.tex", RECIPE, "x")
    for path in (tmp_path, tmp_path / "thesis.tex", tmp_path / "nowhere"):
        with pytest.raises(OneiroError, match="is not a run folder"):
            RunFolder.read(path)


def test_a_start_killed_before_its_recipe_was_written(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".owner.json").write_text("{")
    (tmp_path / ".recipe.json.77.tmp").write_text("{")
    begin(tmp_path)


def test_no_permission(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OneiroError, match=r"cannot write the run folder.*--run"):
        RunFolder.open(tmp_path / "file" / "run", RECIPE, "x")


def test_twice_in_one_process(tmp_path):
    with (
        RunFolder.open(tmp_path, RECIPE, "first"),
        pytest.raises(OneiroError, match=rf"process {os.getpid()} on {socket.gethostname()} .*\(first\)"),
    ):
        RunFolder.open(tmp_path, RECIPE, "second")


HOLD = """
import json, os, sys, time
from oneiro.training.run_folder import RunFolder
run = RunFolder.open(sys.argv[1], json.loads(sys.argv[2]), "the first command")
if sys.argv[3] == "with a child" and os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(60)
    os._exit(0)
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and kill -9")
@pytest.mark.parametrize("alone", ["alone", "with a child"])
def test_second_process_is_refused_until_the_first_is_killed(tmp_path, alone):
    """A forked environment worker that outlives its parent must not keep the folder."""
    recipe = {"a": 1}
    child = None
    command = [sys.executable, "-c", HOLD, str(tmp_path), json.dumps(recipe), alone]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(1 if alone == "alone" else 2)]
        child = next((int(line) for line in lines if line.isdigit()), None)
        try:
            with pytest.raises(OneiroError) as error:
                RunFolder.open(tmp_path, recipe, "the second command")
            assert f"in use by process {process.pid} on {socket.gethostname()}" in str(error.value)
            assert "the first command" in str(error.value)
            assert f"kill {process.pid}" in str(error.value)
            assert RunFolder.read(tmp_path).recipe == recipe
            process.send_signal(signal.SIGKILL)
            process.wait()
            RunFolder.open(tmp_path, recipe, "the second command").close()
        finally:
            process.kill()
            if child is not None:
                os.kill(child, signal.SIGKILL)


def test_a_field_that_a_newer_version_added_may_have_its_default(tmp_path: Path):
    old, new = {"world": {"z_dim": 8}}, {"world": {"z_dim": 8, "bias": 0.5}}
    with RunFolder.open(tmp_path / "run", old, "then") as run:
        run.metrics.write_text("{}\n")
    with pytest.raises(OneiroError, match=r"world\.bias"):
        RunFolder.open(tmp_path / "run", new, "now", defaults={"world": {"z_dim": 8, "bias": 0.0}})
    with RunFolder.open(tmp_path / "run", new, "now", defaults=new) as folder:
        assert folder.recipe == new
