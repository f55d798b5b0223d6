"""Every fault is really provoked: bits are flipped, files cut, disks filled, processes killed."""

import json
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from oneiro.errors import OneiroError
from oneiro.training import files
from oneiro.training.checkpoint import Checkpoints
from oneiro.training.files import sha256


def weights(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {"a": torch.randn(5, 3, generator=generator), "b": torch.full((4,), float(step))}


def fill(folder: Path, steps=(100, 200, 300), keep=3) -> Checkpoints:
    checkpoints = Checkpoints(folder / "checkpoint", keep=keep)
    for step in steps:
        checkpoints.save(step, {"weights": weights(step)}, {"step": step, "noise": torch.arange(3)})
    return checkpoints


def assert_is(checkpoint, step: int) -> None:
    assert checkpoint is not None
    assert checkpoint.step == checkpoint.state["step"] == step
    for name, tensor in weights(step).items():
        assert torch.equal(checkpoint.tensors["weights"][name], tensor)


def test_round_trip_keeps_everything(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    assert checkpoints.load() is None
    state = {"lr": math.inf, "loss": math.nan, "none": None, "seen": (1, 2), "table": {3: [True, "x"]}}
    state["array"] = np.arange(6, dtype=np.uint16).reshape(2, 3)
    state["big"] = 2**127 + 1
    path = checkpoints.save(7, {"weights": weights(7), "optimizer": {}}, state)
    assert sorted(p.name for p in path.iterdir()) == [
        "checksums.json",
        "optimizer.safetensors",
        "state.json",
        "state.safetensors",
        "weights.safetensors",
    ]
    found = checkpoints.load()
    assert found is not None
    assert found.step == 7
    assert found.tensors["optimizer"] == {}
    assert torch.equal(load_file(path / "weights.safetensors")["a"], weights(7)["a"])
    got = found.state
    assert got["lr"] == math.inf
    assert math.isnan(got["loss"])
    assert got["seen"] == (1, 2)
    assert got["table"] == {3: [True, "x"]}
    assert got["none"] is None
    assert got["big"] == 2**127 + 1
    assert got["array"].dtype == np.uint16
    assert got["array"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_strict_json_on_disk(tmp_path):
    path = Checkpoints(tmp_path).save(1, {}, {"x": [math.nan, -math.inf]})

    def refuse(name):
        raise AssertionError(name)

    json.loads((path / "state.json").read_text(), parse_constant=refuse)


def test_only_the_last_are_kept(tmp_path):
    checkpoints = fill(tmp_path, range(10, 80, 10), keep=3)
    assert [int(p.name) for p in checkpoints.places()] == [50, 60, 70]
    checkpoints = fill(tmp_path, [80], keep=1)
    assert [int(p.name) for p in checkpoints.places()] == [80]


def test_a_step_can_be_saved_again(tmp_path):
    checkpoints = fill(tmp_path, [1, 2])
    for value in (1.0, 2.0, 3.0):
        checkpoints.save(2, {"weights": {"w": torch.tensor(value)}})
        found = checkpoints.load()
        assert found is not None
        assert found.tensors["weights"]["w"] == value
    assert len(checkpoints.places()) == 2


def test_awkward_tensors(tmp_path):
    base = torch.arange(24.0).reshape(2, 3, 4)
    tied = nn.Parameter(torch.ones(2, 2))
    tensors = {
        "turned": base.permute(2, 0, 1),
        "view": base[0],
        "one": tied,
        "two": tied,
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 5),
        "bool": torch.tensor([True, False]),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"weights": tensors})
    found = checkpoints.load()
    assert found is not None
    for name, tensor in tensors.items():
        assert torch.equal(found.tensors["weights"][name], tensor), name
        assert found.tensors["weights"][name].dtype == tensor.dtype


@pytest.mark.parametrize("name", ["weights.safetensors", "state.safetensors", "state.json", "checksums.json"])
def test_truncated_anywhere_falls_back(tmp_path, name):
    fill(tmp_path)
    newest = tmp_path / "checkpoint" / f"{300:012d}" / name
    whole = newest.read_bytes()
    rng = random.Random(name)
    for size in {0, len(whole) - 2, *(rng.randrange(len(whole) - 1) for _ in range(12))}:
        newest.write_bytes(whole[:size])
        with pytest.warns(UserWarning, match=rf"damaged checkpoint skipped.*{name}.*step 200"):
            assert_is(Checkpoints(tmp_path / "checkpoint").load(), 200)


@pytest.mark.parametrize("name", ["weights.safetensors", "state.safetensors", "state.json", "checksums.json"])
def test_a_flipped_bit_is_never_believed(tmp_path, name):
    fill(tmp_path)
    newest = tmp_path / "checkpoint" / f"{300:012d}" / name
    whole = newest.read_bytes()
    rng = random.Random(name)
    for _ in range(40):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        newest.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = Checkpoints(tmp_path / "checkpoint").load()
        # a flip inside white space of checksums.json does no harm, and none is reported
        assert_is(found, 200 if caught else 300)
        assert caught or name == "checksums.json"


@pytest.mark.parametrize("name", ["weights.safetensors", "state.json", "checksums.json"])
def test_missing_file_falls_back(tmp_path, name):
    checkpoints = fill(tmp_path)
    (tmp_path / "checkpoint" / f"{300:012d}" / name).unlink()
    with pytest.warns(UserWarning, match=rf"{name}: missing"):
        assert_is(checkpoints.load(), 200)


class Payload:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("forged", [False, True])
def test_a_pickle_in_disguise_is_never_executed(tmp_path, forged):
    checkpoints = fill(tmp_path)
    fired = tmp_path / "executed"
    folder = tmp_path / "checkpoint" / f"{300:012d}"
    poison = pickle.dumps(Payload(fired))
    for name in ("weights.safetensors", "state.safetensors", "state.json"):
        (folder / name).write_bytes(poison)
        if forged:  # somebody who also rewrote the checksums
            sums = json.loads((folder / "checksums.json").read_text())
            sums["files"][name] = {"bytes": len(poison), "sha256": sha256(folder / name)}
            (folder / "checksums.json").write_text(json.dumps(sums))
    with pytest.warns(UserWarning, match="damaged checkpoint skipped"):
        assert_is(checkpoints.load(), 200)
    assert not fired.exists()
    pickle.loads(poison)  # the payload does fire where pickles are read
    assert fired.exists()


def test_a_forged_weights_file_alone_is_named(tmp_path):
    checkpoints = fill(tmp_path)
    folder = tmp_path / "checkpoint" / f"{300:012d}"
    (folder / "weights.safetensors").write_bytes(b"\x80\x04junk" * 9)
    sums = json.loads((folder / "checksums.json").read_text())
    sums["files"]["weights.safetensors"] = {"bytes": 54, "sha256": sha256(folder / "weights.safetensors")}
    (folder / "checksums.json").write_text(json.dumps(sums))
    with pytest.warns(UserWarning, match=r"weights.safetensors: not a safetensors file"):
        assert_is(checkpoints.load(), 200)


def test_all_damaged_is_an_error_with_a_remedy(tmp_path):
    checkpoints = fill(tmp_path)
    for place in checkpoints.places():
        (place / "weights.safetensors").write_bytes(b"")
    with pytest.raises(OneiroError, match=r"none of the checkpoints(.|\n)*000100/weights(.|\n)*backup"):
        checkpoints.load()


def test_going_on_from_an_older_one_gives_the_later_up(tmp_path):
    checkpoints = fill(tmp_path)
    (tmp_path / "checkpoint" / f"{300:012d}" / "state.json").write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        assert_is(checkpoints.load(), 200)
    checkpoints.save(250, {"weights": weights(250)}, {"step": 250})
    assert_is(checkpoints.load(), 250)
    assert [int(p.name) for p in checkpoints.places()] == [100, 200, 250]


def test_newer_format_asks_for_an_upgrade(tmp_path, monkeypatch):
    monkeypatch.setattr("oneiro.training.checkpoint.FORMAT", 2)
    checkpoints = fill(tmp_path)
    monkeypatch.undo()
    with pytest.raises(OneiroError, match=r"newer oneiro.*format 2.*pip install --upgrade"):
        checkpoints.load()


def assert_untouched_and_clean(folder: Path) -> None:
    assert_is(Checkpoints(folder).load(), 300)
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("nth", range(6))
def test_disk_full_in_any_file(tmp_path, monkeypatch, nth):
    checkpoints = fill(tmp_path)
    calls = iter(range(100))
    real = os.fsync

    def full(descriptor):
        if next(calls) == nth:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(
        OneiroError, match=r"disk is full(.|\n)*[Ff]ree at least .* MB at (.|\n)*same command"
    ):
        checkpoints.save(400, {"weights": weights(400)}, {"step": 400, "x": torch.ones(2)})
    monkeypatch.undo()
    assert_untouched_and_clean(tmp_path / "checkpoint")


LIMITED = """
import resource, signal, sys, torch
from pathlib import Path
from oneiro.errors import OneiroError
from oneiro.training.checkpoint import Checkpoints
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    Checkpoints(Path(sys.argv[1])).save(400, {"weights": {"w": torch.zeros(100_000)}}, {})
except OneiroError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_write_that_the_system_refuses(tmp_path):
    """The kernel refuses bytes beyond 100 kB; safetensors writes from Rust, where nothing can be patched."""
    fill(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "checkpoint")], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "the disk is full: the checkpoint of step 400 (0.5 MB)" in done.stdout
    assert_untouched_and_clean(tmp_path / "checkpoint")


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_is_really_full(small_disk):
    checkpoints = fill(small_disk)
    with pytest.raises(OneiroError, match=r"the disk is full.*\(0\.\d MB free\)"):
        checkpoints.save(400, {"weights": {"w": torch.zeros(100_000)}}, {})
    assert_untouched_and_clean(small_disk / "checkpoint")
    checkpoints.save(400, {"weights": weights(400)}, {"step": 400})
    assert_is(checkpoints.load(), 400)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "checkpoint").write_text("a file where the folder should be")
    with pytest.raises(OneiroError, match="cannot write the checkpoint of step 1"):
        Checkpoints(tmp_path / "checkpoint").save(1, {}, {})


KILLED = """
import sys, torch
from pathlib import Path
from oneiro.training.checkpoint import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]), keep=2)
found = checkpoints.load()
step = found.step if found else 0
print("ready", step, flush=True)
while True:
    step += 1
    checkpoints.save(step, {"weights": {"w": torch.full((50_000,), float(step))}}, {"step": step})
    print(step, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
def test_killed_at_any_moment_there_is_a_whole_checkpoint(tmp_path):
    """A fork server would be faster to start; a bare process is what a user kills."""
    folder, rng, reached = tmp_path / "checkpoint", random.Random(0), 0
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            said = [reached, *map(int, process.stdout.read().split())]
        found = Checkpoints(folder).load()  # warnings are errors: the newest itself is whole
        assert found is not None
        assert found.step == found.state["step"] >= max(said)
        assert torch.equal(found.tensors["weights"]["w"], torch.full((50_000,), float(found.step)))
        reached = found.step
    checkpoints = Checkpoints(folder, keep=2)
    checkpoints.save(reached + 1, {}, {})
    assert len(list(folder.iterdir())) == 2  # what the killed left behind is swept away


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_many_random_moments(tmp_path):
    """30 forked children report each save through a pipe, and are killed within or after one of the first."""
    folder, rng = tmp_path / "checkpoint", random.Random(1)
    data, reached = {"w": torch.zeros(20_000)}, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads around
        for _ in range(30):
            ours, theirs = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    step = reached
                    while True:
                        step += 1
                        os.write(theirs, b".")
                        Checkpoints(folder, keep=2).save(step, {"weights": data}, {"step": step})
                finally:
                    os._exit(1)
            begun = sum(len(os.read(ours, 1)) for _ in range(rng.choice([1, 2, 3])))
            time.sleep(rng.uniform(0, 0.015))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(ours)
            os.close(theirs)
            found = Checkpoints(folder).load()
            step = found.step if found else 0
            assert step >= reached + begun - 1
            assert found is None or found.state["step"] == step
            reached = step
    assert reached > 12


def test_loading_while_another_process_saves(tmp_path):
    checkpoints = fill(tmp_path, [1])
    code = KILLED.replace("while True:", "for _ in range(25):")
    command = [sys.executable, "-c", code, str(checkpoints.folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        last = 0
        while process.poll() is None:
            found = checkpoints.load()
            assert found is not None
            assert found.step >= last
            last = found.step
            assert float(found.tensors["weights"].get("w", torch.tensor([float(last)]))[-1]) == last
    assert checkpoints.places()[-1].name == f"{26:012d}"
