"""Where metrics go besides `metrics.jsonl`: TensorBoard, Weights & Biases, trackio; imported when needed."""

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oneiro.errors import MissingExtra


class Sink(ABC):
    """Takes events. Steps count within a stage, so each stage has curves of its own."""

    @abstractmethod
    def write(self, step: int, values: Mapping[str, float], stage: str) -> None:
        """One event."""

    @abstractmethod
    def close(self) -> None:
        """No more events."""


class TensorBoard(Sink):
    """One TensorBoard run per stage: `tensorboard/STAGE/events...`.

    When a stage is resumed, what was written after its last step in `last_steps` is purged.
    """

    def __init__(self, folder: Path, last_steps: Mapping[str, int]) -> None:
        self.folder, self.last_steps = folder, last_steps
        self._stage: str | None = None
        self._writer: Any = None

    def write(self, step: int, values: Mapping[str, float], stage: str) -> None:
        """Values that are not finite are left out: tensorboardX would print about each."""
        if stage != self._stage:
            self.close()
            self._writer, self._stage = self._open(stage), stage
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the file of the present stage."""
        if self._writer is not None:
            self._writer.close()
        self._writer = self._stage = None

    def _open(self, stage: str) -> Any:
        from tensorboardX import SummaryWriter  # takes a second, hence not at the top

        folder = self.folder / stage
        is_resumed = folder.is_dir() and any(folder.iterdir())
        purge = self.last_steps.get(stage, -1) + 1 if is_resumed else None
        suffix = f".{time.time_ns()}"  # file names count in seconds: two in one second would be one file
        return SummaryWriter(str(folder), purge_step=purge, flush_secs=30, filename_suffix=suffix)


class WandB(Sink):
    """Weights & Biases. A resumed run goes on under the same id; each stage has its own step axis."""

    def __init__(self, folder: Path, project: str) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtra("wandb", "wandb") from error
        identity, recipe = _identity(folder)
        self._run = wandb.init(
            project=project,
            name=folder.resolve().name,
            id=identity,
            config=recipe,
            dir=str(folder),
            resume="allow",
        )
        self._stages: set[str] = set()

    def write(self, step: int, values: Mapping[str, float], stage: str) -> None:
        """Metrics as STAGE/NAME over STAGE/step."""
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{stage}/step")
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._run.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in values.items()}})

    def close(self) -> None:
        """Upload or store what is left."""
        self._run.finish()


class Trackio(Sink):
    """trackio. A resumed run goes on under the same name; metrics as STAGE/NAME."""

    def __init__(self, folder: Path, project: str) -> None:
        try:
            import trackio
        except ImportError as error:
            raise MissingExtra("trackio", "trackio") from error
        identity, recipe = _identity(folder)
        name = f"{folder.resolve().name}-{identity}" if identity else folder.resolve().name
        self._trackio = trackio
        trackio.init(project=project, name=name, config=recipe, resume="allow")

    def write(self, step: int, values: Mapping[str, float], stage: str) -> None:
        """Values that are not finite are left out."""
        numbers = {f"{stage}/{name}": value for name, value in values.items() if math.isfinite(value)}
        self._trackio.log(numbers, step=step)

    def close(self) -> None:
        """Send or store what is left."""
        self._trackio.finish()


def _identity(folder: Path) -> tuple[str | None, dict[str, Any]]:
    """Id and recipe of the run folder; None and {} for a folder without recipe.json."""
    file = folder / "recipe.json"
    if not file.exists():
        return None, {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return content["id"], content["recipe"]
