"""`Stop`: SIGINT and SIGTERM ask a run to save and leave. `Every`: the timer of checkpoints."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any


class Stop:
    """While entered, the first SIGINT or SIGTERM only sets `requested`; a second SIGINT interrupts at once.

    Outside the main thread signals cannot be caught: then `requested` stays False unless `request` is called.
    """

    def __init__(self) -> None:
        self.requested = False
        self.signal: int | None = None  # the first one caught
        self._previous: dict[int, Any] = {}

    def request(self) -> None:
        """Ask the run to save and leave at its next tick."""
        self.requested = True

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # None: a handler that was not installed from Python and cannot be put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def _caught(self, number: int, _: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number
        self.request()


class Every:
    """Due once every `minutes`; `reset` after doing what was due."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not minutes > 0:
            raise ValueError(f"minutes = {minutes}: the interval must be positive; set it to 5, say")
        self.seconds, self._clock = 60 * minutes, clock
        self.reset()

    def due(self) -> bool:
        """True once the interval has passed since the last `reset`."""
        return self._clock() >= self._next

    def reset(self) -> None:
        """Begin a new interval now."""
        self._next = self._clock() + self.seconds
