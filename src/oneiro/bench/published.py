"""Speeds of the released code of some systems, which `bench` shows beside its own where the shapes are the same.

They were measured once, by the authors of this library, on another machine. Between machines a speed tells little:
what was won is told by the plain form, in the same run (`--against naive`).
"""

from dataclasses import dataclass
from typing import Any

from oneiro.bench.rival import Rival

Seconds = tuple[float, float, float]
"""Of one call: median, least, greatest."""


@dataclass(frozen=True, kw_only=True)
class Released:
    """One code at one size. `shapes` are those of the plain form that all works depend on."""

    code: str
    script: str  # of the plain form
    shapes: dict[str, Any]
    seconds: dict[str, Seconds]  # by work
    of_work: dict[str, dict[str, Any]]  # further shapes that a work depends on

    def has(self, plain: Rival, work: str) -> bool:
        """Whether the work was measured with these shapes. The number of actions may differ: it hardly counts."""
        wanted = self.shapes | self.of_work.get(work, {})
        found = {"steps": len(plain.shapes.get("sigmas", ())) - 1, **plain.shapes}  # of denoising
        is_alike = plain.script == self.script and all(found.get(k) == v for k, v in wanted.items())
        return is_alike and work in self.seconds


WHERE = (
    "measured elsewhere, in float32 on two cores of a server processor with AVX-512, with the system's allocator; "
    "another machine, so there is no ratio"
)


def rates(plain: Rival | None, work: str, amount: float) -> dict[str, Any] | None:
    """Median, least and greatest rate of the released code at a work, one call of which does `amount`; and whose."""
    for released in RELEASED:
        if plain is not None and released.has(plain, work):
            median, least, greatest = released.seconds[work]
            found = {"median": amount / median, "min": amount / greatest, "max": amount / least}
            return found | {"code": released.code, "measured": WHERE}
    return None


def _dreamer(units: int, seconds: dict[str, Seconds]) -> Released:
    """The official sizes that were measured, on pictures and six actions."""
    widths = {"units": units, "deter": 8 * units, "classes": units // 16, "depth": units // 16, "stoch": 32}
    return Released(
        code="danijar/dreamerv3 (JAX 0.4.33)",
        script="naive_dreamer.py",
        shapes=widths
        | {"blocks": 8, "bins": 255, "image": [3, 64, 64], "vector": 0, "discrete": True, "horizon": 15},
        seconds=seconds,
        of_work={"update": {"size": 16, "length": 64}, "imagine": {"rows": 1024}},
    )


RELEASED = (
    _dreamer(
        64,
        {
            "update": (3.60, 3.45, 3.72),
            "imagine": (0.187, 0.181, 0.200),
            "act 1": (0.00145, 0.00136, 0.0019),
            "act 16": (0.0091, 0.0085, 0.0159),
        },
    ),
    _dreamer(
        256,
        {
            "update": (13.9, 13.1, 15.9),
            "imagine": (1.28, 1.27, 1.30),
            "act 1": (0.0028, 0.0027, 0.0031),
            "act 16": (0.0206, 0.0195, 0.0249),
        },
    ),
    Released(
        code="eloialonso/diamond (PyTorch)",
        script="naive_diamond.py",
        shapes={
            "image": [3, 64, 64],
            "context": 4,
            "channels": [64, 64, 64, 64],
            "blocks": 2,
            "cond": 256,
            "steps": 3,
            "reward": {"channels": [32, 32, 32, 32], "blocks": 2, "cond": 128, "hidden": 512},
            "behaviour": {"channels": [32, 32, 64, 64], "hidden": 512},
            "horizon": 15,
        },
        seconds={
            "denoiser update, one frame": (4.39, 3.98, 4.49),
            "reward update": (2.45, 2.01, 3.17),
            "behaviour update": (4.50, 4.47, 4.52),
            "dream": (3.63, 3.47, 3.68),
            "play": (0.085, 0.079, 0.101),
        },
        of_work={
            "denoiser update, one frame": {"denoiser_batch": [32, 6]},
            "reward update": {"reward_batch": [8, 19]},
            "behaviour update": {"behaviour_batch": 4},
            "dream": {"rows": 32},
        },
    ),
)
