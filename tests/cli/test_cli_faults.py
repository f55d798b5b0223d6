"""Training where it cannot work: wrong spaces, bad numbers, a full disk."""

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from calling import FAULTS, TOY, oneiro


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(place)]
    try:
        is_mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        is_mounted = False
    if not is_mounted:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def real_scores(run: Path) -> list[float]:
    return json.loads((run / "scores" / "real.json").read_text())["score"]


def test_worlds_that_do_not_fit_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    answer = oneiro("train", f"{FAULTS}:cart_pole", "--run", tmp_path / "a")
    assert answer.is_error("needs an image of 3 x 64 x 64", "none")
    answer = oneiro("train", f"{FAULTS}:large_picture", "--run", tmp_path / "b")
    assert answer.is_error("needs an image of 3 x 64 x 64", "(3, 32, 32)")


def test_an_environment_that_returns_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    answer = oneiro("train", f"{FAULTS}:nan_counter", "--run", tmp_path / "a")
    assert answer.is_error("NaN", "step 2", "seed")


def test_a_full_disk(small_disk: Path, trained: Path):
    command = ("train", TOY, "--run", small_disk / "run")
    assert oneiro(*command).is_error("disk is full")
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    assert oneiro(*command).code == 0
    assert real_scores(small_disk / "run") == real_scores(trained)


@pytest.mark.parametrize("good", [3, 20, 60])
def test_the_disk_is_full_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path, good: int
):
    command = ("train", TOY, "--run", tmp_path / "run", "--quiet")
    fsync, calls = os.fsync, iter(range(1_000_000))

    def full(descriptor: int) -> None:
        if next(calls) >= good:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert oneiro(*command).is_error("disk is full")
    assert oneiro(*command).code == 0
    assert real_scores(tmp_path / "run") == real_scores(trained)
