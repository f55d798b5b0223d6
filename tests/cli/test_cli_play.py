"""`oneiro play`: what it hands to the server, and what it refuses. The server has tests of its own."""

from pathlib import Path
from typing import Any

import pytest
from calling import TOY, oneiro

pytest.importorskip("starlette")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What `serve` is called with, instead of serving."""
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr("oneiro.play.server.serve", lambda *given: found.append(given))
    return found


def test_two_runs_and_all_options(trained: Path, served: list[tuple[Any, ...]], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.symlink_to(trained, target_is_directory=True)
    limits = ("--sessions", 3, "--games", 0, "--memory", 5, "--idle", 7, "--length", 9)
    doors = ("--host", "0.0.0.0", "--token", "long enough", "--names", "den", "--port", 65535)
    answer = oneiro("play", trained, other, "--recipe", TOY, "--recipe2", TOY, *limits, *doors)
    assert answer.code == 0, answer.err
    ((runs, door, port, limit),) = served
    assert [run.name for run in runs] == [trained.name, trained.name]
    assert runs[0] is not runs[1]
    assert (door.host, door.token, door.names, port) == ("0.0.0.0", "long enough", ("den",), 65535)
    assert (limit.sessions, limit.environments, limit.history_mib) == (3, 0, 5)
    assert (limit.idle_seconds, limit.session_seconds) == (7, 9)


def test_one_run_and_its_defaults(trained: Path, served: list[tuple[Any, ...]]) -> None:
    assert oneiro("play", trained, "--recipe", TOY, "--port", 0).code == 0
    ((runs, door, port, limit),) = served
    assert len(runs) == 1
    assert (door.host, door.token, port, limit.sessions) == ("127.0.0.1", "", 0, 8)


def test_what_is_refused(trained: Path, served: list[tuple[Any, ...]], tmp_path: Path) -> None:
    run = ("play", trained, "--recipe", TOY)
    for port in (-1, 65536):
        oneiro(*run, "--port", port).is_error("--port must lie in 0 to 65535", str(port))
    oneiro(*run, "--host", "0.0.0.0").is_error("--host 0.0.0.0", "--token")
    oneiro(*run, "--host", "0.0.0.0", "--token", "short").is_error("--token of at least 8")
    oneiro(*run, "--sessions", 0).is_error("sessions must be at least 1")
    oneiro("play", trained).is_error("--recipe")
    oneiro("play", trained, trained, "--recipe", TOY).is_error("--recipe")
    oneiro("play", tmp_path / "none").is_error("does not exist")
    assert served == []
