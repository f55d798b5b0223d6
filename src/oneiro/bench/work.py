"""`Work`: something that is timed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Work:
    """Something to time. One call does `amount` of `unit`."""

    name: str
    shape: str
    unit: str
    amount: float
    call: Callable[[], Any]
    naive: str = ""
    """Its name in the plain form's script; "" if there is no plain form."""
    naive_amount: float = 0.0
    flop: float | None = None
    """Floating-point operations of one call, if they are counted."""
    seconds: list[float] = field(default_factory=list)
    naive_seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    """Plain time / our time, one number for each round."""
