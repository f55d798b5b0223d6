"""`Check`, one verdict of the conformance suite, and the loop that turns rules into verdicts."""

import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch


@dataclass(frozen=True)
class Check:
    """What one rule found. `str(check)` is one line."""

    name: str
    """Short and stable, for example "an is_first row erases history"."""
    outcome: Literal["passed", "failed", "skipped"]
    message: str = ""
    """Failed: what is wrong and the usual cause. Skipped: why the rule does not apply."""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """True unless the rule was broken; a skipped rule is not broken."""
        return self.outcome != "failed"

    def __str__(self) -> str:
        return f"{self.outcome:7} {self.name}" + (f": {self.message}" if self.message else "")


Told = Callable[[Check], None]
"""Hears each verdict as it is found, in order; for progress."""


@dataclass(frozen=True)
class Rule:
    """A sentence every world or behaviour obeys, how to test it, and why it usually breaks."""

    name: str
    test: Callable[[Any], None]
    """Takes a case; calls `violated` or `skip`, or returns."""
    cause: str


class Violation(Exception):  # noqa: N818 - caught by `run`, never seen by users
    """The rule is broken; the text says what was seen."""


class Skip(Exception):  # noqa: N818
    """The rule does not apply; the text says why."""


def violated(what: str) -> NoReturn:
    """End a test: the rule is broken."""
    raise Violation(what)


def skip(why: str) -> NoReturn:
    """End a test: the rule does not apply."""
    raise Skip(why)


def require(checks: Iterable[Check]) -> None:
    """AssertionError that lists every failed check, for use in tests."""
    failed = [check for check in checks if not check.passed]
    assert not failed, "\n" + "\n".join(f"- {check.name}: {check.message}" for check in failed)


def run(
    rules: Sequence[Rule], make_case: Callable[[], Any], only: str | None = None, told: Told = lambda _: None
) -> list[Check]:
    """Test every rule on a case of its own, so that none can disturb the next; the caller's random
    numbers go on as if nothing had happened. `only`: rules whose name contains it. `told` hears each verdict at once.
    """
    checks = []
    with torch.random.fork_rng():
        for rule in rules:
            if only is None or only in rule.name:
                checks.append(_run_one(rule, make_case))
                told(checks[-1])
    return checks


def _run_one(rule: Rule, make_case: Callable[[], Any]) -> Check:
    began = time.perf_counter()
    torch.manual_seed(0)
    outcome, message = "passed", ""
    try:
        rule.test(make_case())
    except Skip as reason:
        outcome, message = "skipped", str(reason)
    except Violation as seen:
        outcome, message = "failed", f"{seen}. Usual cause: {rule.cause}."
    except Exception as error:  # whatever the code under test raises is its failure, told with its place
        outcome = "failed"
        message = f"raised {type(error).__name__}: {error} ({_place(error)}). Usual cause: {rule.cause}."
    return Check(rule.name, outcome, message, time.perf_counter() - began)  # type: ignore[arg-type]


def _place(error: Exception) -> str:
    """`file.py:12` of the innermost frame that is neither ours nor a library's."""
    here = Path(__file__).parent
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).parent != here and "site-packages" not in f.filename]
    frame = (own or list(frames))[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
