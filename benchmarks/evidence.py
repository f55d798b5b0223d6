"""What the scripts behind results/ share: runs that can be stopped and measured, and the facts beside numbers."""

import json
import os
import platform
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from oneiro import runtime

RESULTS = Path("results")
GIB = 1 << 30


@dataclass(frozen=True)
class Trial:
    """One run: a row of the table, together with the other seeds of the same label."""

    label: str
    name: str
    seed: int
    options: tuple[str, ...] = ()
    recipe: str = "vmc-takecover"
    size: str = "demo"
    root: Path = Path("runs/evidence")

    @property
    def command(self) -> list[str]:
        """As a user would type it after `oneiro`."""
        base = ["train", self.recipe, "--size", self.size, "--seed", str(self.seed), "--run", str(self.path)]
        return [*base, *self.options]

    @property
    def path(self) -> Path:
        """Its run folder."""
        return self.root / self.name

    @property
    def usage(self) -> Path:
        """What `measured` notes of it; beside the run folder, which `oneiro train` makes."""
        return self.path.with_name(f"{self.name}.usage.json")


def oneiro(words: Sequence[str], *, threads: int = 0) -> None:
    """`oneiro WORDS`; CalledProcessError if it fails. `threads` > 0 limits the threads of its operations."""
    wait(start(words, threads))


def measured(words: Sequence[str], file: Path, *, threads: int = 0, every: float = 2.0) -> None:
    """`oneiro WORDS`, and note in `file` seconds and peak memory of all its processes; repeated runs add up.

    Memory is the proportional set size where the system tells it, so pages that workers share count once.
    """
    began, peak, stop = time.monotonic(), [0.0], threading.Event()
    process = start(words, threads)

    def watch() -> None:
        while not stop.wait(every):
            peak[0] = max(peak[0], memory(process.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        wait(process)
    finally:
        stop.set()
        watcher.join()
        before = read_usage(file)
        usage = {
            "seconds": round(before["seconds"] + time.monotonic() - began, 1),
            "peak_gib": round(max(before["peak_gib"], peak[0] / GIB), 3),
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(usage) + "\n")


def stop_all() -> None:
    """Ask every command that runs to save and leave; repeated, it goes on from there."""
    for process in list(_running):
        process.terminate()


def read_usage(file: Path) -> dict[str, float]:
    """What `measured` has noted so far."""
    return json.loads(file.read_text()) if file.exists() else {"seconds": 0.0, "peak_gib": 0.0}


def memory(pid: int) -> float:
    """Bytes in use by a process and its children."""
    total = 0.0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in family:
        try:
            full = process.memory_full_info()
            total += getattr(full, "pss", 0) or full.rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def facts(title: str, command: str) -> dict[str, Any]:
    """What is noted of every result; see `heading`."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "title": title,
        "command": command,
        "commit": commit.stdout.strip(),
        "hardware": f"{runtime.cpu_name()}, {torch.get_num_threads()} threads, {platform.system()}",
        "compute dtype, if none is asked for": str(runtime.chosen_dtype()).removeprefix("torch."),
        "torch": torch.__version__,
    }


def heading(about: dict[str, Any], *text: str) -> list[str]:
    """The lines above a result: its title, what it is if there are words for it, and its other facts."""
    words = [*text, ""] if any(text) else []
    return [f"# {about['title']}", "", *words, *(f"- {k}: {v}" for k, v in about.items() if k != "title")]


def last_paragraph(text: str | None) -> str:
    """Of a script's docstring: what its result is."""
    return (text or "").strip().split("\n\n")[-1]


def write(name: str, record: dict[str, Any], lines: Sequence[str]) -> None:
    """results/NAME.json and results/NAME.md."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    print(f"results/{name}.md")


_running: set[subprocess.Popen] = set()


def start(words: Sequence[str], threads: int = 0) -> subprocess.Popen:
    """Begin `oneiro WORDS`; see `oneiro`."""
    print("oneiro", shlex.join(words), flush=True)
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    process = subprocess.Popen(_python(words), env=environment)
    _running.add(process)
    return process


def wait(process: subprocess.Popen) -> None:
    """Until it has ended; it ends too if this is interrupted. CalledProcessError if it failed."""
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        _running.discard(process)
    if code:
        raise subprocess.CalledProcessError(code, process.args)


def _python(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "oneiro.cli", *words]
