"""What a report is made of: plain records that a run fills in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from oneiro.evaluation.learning_section import Learning

Tone = Literal["chance", "dream", "real"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of the results table."""

    name: str
    """For example "Random policy"."""
    scores: Sequence[float]
    """Of single episodes; empty: shown as not measured."""
    tone: Tone
    """What it is: the policy that plays by chance, a score in the dream, one in the real environment."""
    note: str = ""
    """How it was measured, in a few words."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A film with its text."""

    title: str
    caption: str
    film: Path | None
    """A .webp or .gif, which is copied into the page. None: the page says that it is missing."""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything a report shows. What is empty or None is named as missing in its place on the page."""

    title: str
    """One line, for example "Doom, learned in a dream"."""
    intro: str
    """Two sentences for a stranger: what was learned from what, and how it was tested."""
    unit: str = "score"
    """What scores count, for example "tics survived"."""
    lines: Sequence[Line] = ()
    """Results, the reference by chance first; the last "real" line is the headline."""
    marks: dict[str, float] = field(default_factory=dict)
    """Published thresholds by name, drawn beside the scores, for example {"solved": 750}."""
    clips: Sequence[Clip] = ()
    open_loop: dict[str, list[float]] | None = None
    """`OpenLoopResult.curves()`."""
    metrics: Sequence[dict[str, Any]] = ()
    """Records of metrics.jsonl."""
    learning: Learning | None = None
    """Of a run that learns while it plays: its training episodes."""
    practice: str = "in the dream"
    """Where the controller was trained."""
    temperature: dict[float, Sequence[float]] = field(default_factory=dict)
    """Dream scores of single dreams by temperature, one controller."""
    temperature_trained: float | None = None
    """The temperature the controller was trained at."""
    temperature_clip: Clip | None = None
    facts: dict[str, str] = field(default_factory=dict)
    """Command, seed, hardware, versions: shown as they are."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of each stage."""
    parameters: dict[str, int] = field(default_factory=dict)
    """Parameter counts by address."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """The recipe as JSON."""
