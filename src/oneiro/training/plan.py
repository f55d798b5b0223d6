"""`Plan`: what a recipe would take on a machine, as a record and as text."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Duration:
    """Seconds: an estimate, and what it would be if every episode lasted to its environment's limit."""

    about: float
    most: float | None
    """None: an environment has no limit, or nobody knows it."""

    @classmethod
    def of(cls, seconds: float) -> "Duration":
        """Of something that does not depend on the length of episodes."""
        return cls(about=seconds, most=seconds)

    def __add__(self, other: "Duration") -> "Duration":
        return Duration(about=self.about + other.about, most=_sum([self.most, other.most]))


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One line of the plan."""

    name: str
    about: str
    seconds: float | None
    """An estimate; None: not measured."""
    most_seconds: float | None
    """The same if every episode lasted to the limit; None: not measured, or no limit is known."""

    @classmethod
    def of(cls, name: str, about: str, duration: Duration | None) -> "StagePlan":
        """The line of a stage that takes so long."""
        return cls(
            name=name,
            about=about,
            seconds=duration and duration.about,
            most_seconds=duration and duration.most,
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a recipe would take on this machine."""

    device: str
    parameters: dict[str, int]
    schedule: list[StagePlan]
    rows: int | None
    """Of the replay in the end; None: not measured."""
    replay_gib: float | None
    ram_gib: float
    gpu_gib: float
    ram_bytes: dict[str, int] = field(default_factory=dict)
    """What the RAM is for, where it was counted."""
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """Of the whole schedule, if every stage was measured."""
        return _sum([stage.seconds for stage in self.schedule])

    @property
    def most_seconds(self) -> float | None:
        """The same if every episode lasted to the limit."""
        return _sum([stage.most_seconds for stage in self.schedule])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "seconds": self.seconds, "most_seconds": self.most_seconds}

    def __str__(self) -> str:
        width = max(map(len, self.parameters))
        lines = [f"device: {self.device}", "", "parameters"]
        lines += [f"  {name:{width}} {count:>12,}" for name, count in self.parameters.items()]
        lines += ["", "schedule"]
        lines += [f"  {s.name:10} {_clock(s.seconds):>9}  {s.about}" for s in self.schedule]
        rows = "?" if self.rows is None else f"{self.rows:,}"
        size = "?" if self.replay_gib is None else f"about {self.replay_gib:.1f}"
        lines += ["", f"replay: {rows} rows, {size} GiB on disk"]
        lines += [
            f"RAM: about {self.ram_gib:.1f} GiB" + (f", GPU {self.gpu_gib:.1f} GiB" if self.gpu_gib else "")
        ]
        if self.seconds is not None:
            lines += [f"time: about {_clock(self.seconds)}" + _limit(self.seconds, self.most_seconds)]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _sum(numbers: list[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _limit(seconds: float, most: float | None) -> str:
    if most is None or most < 1.1 * seconds:
        return ""
    return f"; {_clock(most)} if every episode lasted to the environment's limit"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
