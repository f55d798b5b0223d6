"""`Work`: something that is timed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, kw_only=True)
class Flop:
    """Floating-point operations, 2 per multiply-add: in matrix products, and in convolutions."""

    gemm: float = 0.0
    conv: float = 0.0

    @property
    def total(self) -> float:
        """Both."""
        return self.gemm + self.conv

    def times(self, factor: float) -> "Flop":
        """Of so many calls."""
        return Flop(gemm=self.gemm * factor, conv=self.conv * factor)

    def seconds(self, peak: dict[str, float], dtype: str) -> float:
        """At the machine's peak [GFLOP/s] of each kind, one after the other."""
        return (self.gemm / peak[f"gemm_{dtype}"] + self.conv / peak[f"conv_{dtype}"]) / 1e9


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
    flop: Flop | None = None
    """Of one call, if they are counted."""
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


def count(call: Callable[[], Any]) -> Flop:
    """Of one call, as executed: a convolution that is computed as a matrix product is one."""
    with FlopCounterMode(display=False) as counter:
        call()
    conv = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "convolution" in str(op))
    return Flop(gemm=float(counter.get_total_flops() - conv), conv=float(conv))
