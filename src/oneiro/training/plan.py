"""`Plan`: what a recipe would take on a machine, as a record and as text."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One line of the plan."""

    name: str
    about: str
    seconds: float | None
    """None: not measured."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a recipe would take on this machine."""

    device: str
    parameters: dict[str, int]
    schedule: list[StagePlan]
    rows: int
    replay_gib: float
    ram_gib: float
    gpu_gib: float
    ram_bytes: dict[str, int] = field(default_factory=dict)
    """What the RAM is for, where it was counted."""
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """Of the whole schedule, if every stage was measured."""
        known = [s.seconds for s in self.schedule if s.seconds is not None]
        return sum(known) if len(known) == len(self.schedule) else None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "seconds": self.seconds}

    def __str__(self) -> str:
        width = max(map(len, self.parameters))
        lines = [f"device: {self.device}", "", "parameters"]
        lines += [f"  {name:{width}} {count:>12,}" for name, count in self.parameters.items()]
        lines += ["", "schedule"]
        lines += [f"  {s.name:10} {_clock(s.seconds):>9}  {s.about}" for s in self.schedule]
        lines += ["", f"replay: {self.rows:,} rows, about {self.replay_gib:.1f} GiB on disk"]
        lines += [
            f"RAM: about {self.ram_gib:.1f} GiB" + (f", GPU {self.gpu_gib:.1f} GiB" if self.gpu_gib else "")
        ]
        lines += [f"time: up to {_clock(self.seconds)}"] if self.seconds is not None else []
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
