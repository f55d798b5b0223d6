"""`Work`: something that is timed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch.utils.flop_counter import FlopCounterMode


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
    prepare: Callable[[], Any] | None = None
    """Done once before the first call."""

    def warm_up(self) -> None:
        """One call that is not timed; its operations are counted unless they are known."""
        if self.prepare is not None:
            self.prepare()
        if self.flop is None:
            self.flop = count(self.call)
        else:
            self.call()


def count(call: Callable[[], Any]) -> float:
    """Floating-point operations of one call: matrix products and convolutions, 2 per multiply-add, as executed."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())
