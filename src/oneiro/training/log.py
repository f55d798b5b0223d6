"""`MetricsLog`: one flat dict of floats per event, in `metrics.jsonl` and in whatever else watches the run.

    {"step": 50, "time": 12.3, "stage": "memory", "world/nll": 1.25, "optim/grad_norm": "Infinity"}

`step` counts within its stage, `time` is seconds of training (pauses between stop and resume left out). JSON
has no NaN: a value that is not finite is written as the string "NaN", "Infinity" or "-Infinity", which `float`
reads back. A resumed run first rewinds to the position saved with its checkpoint, so that a run that was killed and
resumed has the lines of an uninterrupted one.
"""

import json
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneiro.training.files import disk_errors, plain, sync
from oneiro.training.sinks import Sink, TensorBoard, Trackio, WandB

_HEAD = ("step", "time", "stage")


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Who is told about metrics, besides `metrics.jsonl`."""

    tensorboard: bool = True  # write tensorboard/ in the run folder
    wandb: bool = False  # Weights & Biases (extra `wandb`); offline with WANDB_MODE=offline
    trackio: bool = False  # trackio (extra `trackio`), on this machine unless configured otherwise
    project: str = "oneiro"  # project name there


class MetricsLog:
    """The metrics of one run folder. Call `rewind` once before the first `write`."""

    def __init__(self, folder: Path, config: LogConfig | None = None) -> None:
        config = config or LogConfig()
        folder = Path(folder)
        self.path = folder / "metrics.jsonl"
        with disk_errors("metrics.jsonl", self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        self._size = _whole_lines(self._file)
        self._steps: dict[str, int] = {}  # last step of every stage
        self._began = time.monotonic()
        self.sinks: list[Sink] = []
        if config.tensorboard:
            self.sinks.append(TensorBoard(folder / "tensorboard", self._steps))
        if config.wandb:
            self.sinks.append(WandB(folder, config.project))
        if config.trackio:
            self.sinks.append(Trackio(folder, config.project))

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return time.monotonic() - self._began

    def write(self, step: int, values: Mapping[str, Any], *, stage: str) -> None:
        """Append one event; it survives a kill of the process as soon as this returns."""
        if clash := [name for name in _HEAD if name in values]:
            raise ValueError(
                f"metric {clash[0]!r} clashes with a column of metrics.jsonl; call it room/{clash[0]}"
            )
        numbers = {name: float(value) for name, value in values.items()}
        head = {"step": int(step), "time": round(self.seconds, 3), "stage": stage}
        line = json.dumps(plain({**head, **numbers}), allow_nan=False).encode() + b"\n"
        with disk_errors("a line of metrics", self.path, len(line)):
            self._append(line)
        for sink in self.sinks:
            sink.write(int(step), numbers, stage)
        self._steps[stage] = int(step)

    def position(self) -> dict[str, Any]:
        """Where the log ends now, synced to the disk: JSON for a checkpoint."""
        os.fsync(self._file)
        return {"bytes": self._size, "seconds": self.seconds, "steps": dict(self._steps)}

    def rewind(self, position: Mapping[str, Any] | None) -> None:
        """Forget everything after `position`; None forgets everything."""
        position = position or {"bytes": 0, "seconds": 0.0, "steps": {}}
        if self._size < position["bytes"]:
            warnings.warn(
                f"{self.path} has lost {position['bytes'] - self._size} bytes since the checkpoint; the run goes "
                "on, its curves will have a gap",
                stacklevel=2,
            )
        self._size = min(self._size, position["bytes"])
        os.ftruncate(self._file, self._size)
        self._began = time.monotonic() - position["seconds"]
        self._steps.clear()
        self._steps.update(position["steps"])

    def close(self) -> None:
        """Finish the sinks and close the file."""
        for sink in self.sinks:
            sink.close()
        self.sinks.clear()
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1
            sync(self.path.parent)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        """All of `line` or nothing."""
        os.lseek(self._file, self._size, os.SEEK_SET)
        try:
            left = memoryview(line)
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(line)


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """The events of a `metrics.jsonl`, non-finite values as floats again. A torn last line is left out."""
    events = []
    data = Path(path).read_bytes()
    lines = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
            events.append(
                {name: value if name == "stage" else _number(value) for name, value in event.items()}
            )
        except (ValueError, AttributeError):
            warnings.warn(f"{path}: line {number} is damaged and left out", stacklevel=2)
    return events


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def _whole_lines(file: int) -> int:
    """Bytes up to the last newline: a line torn by a kill is overwritten by the next."""
    end = os.lseek(file, 0, os.SEEK_END)
    position, tail = end, b""
    while position > 0 and b"\n" not in tail:
        position = max(0, position - 65536)
        os.lseek(file, position, os.SEEK_SET)
        tail = os.read(file, end - position)
    whole = position + tail.rfind(b"\n") + 1
    os.ftruncate(file, whole)
    return whole
