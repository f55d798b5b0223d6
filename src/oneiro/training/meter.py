"""What a progress display shows besides the bar: rates over the last seconds, time left, memory."""

import sys
import time
from collections import deque
from collections.abc import Callable

import psutil

_WINDOW = 30.0  # seconds over which rates are taken


class Rates:
    """Counters of one stage and how fast they move."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.counts = {"steps": 0.0, "env_steps": 0.0, "updates": 0.0}
        self._found = 0.0
        self._samples: deque[tuple[float, dict[str, float]]] = deque([(clock(), dict(self.counts))])

    def add(self, **amounts: float) -> None:
        """Work done now."""
        for name, amount in amounts.items():
            self.counts[name] += amount

    def found(self, steps: float) -> None:
        """Steps done by an earlier process: they move the bar, not the rate."""
        self.counts["steps"] += steps
        self._found += steps

    def sample(self) -> None:
        """Remember the present counts; call a few times a second."""
        now = self._clock()
        self._samples.append((now, {**self.counts, "steps": self.counts["steps"] - self._found}))
        while len(self._samples) > 2 and now - self._samples[1][0] > _WINDOW:
            self._samples.popleft()

    def rate(self, name: str) -> float:
        """Per second, over the last half minute."""
        (before, old), (now, new) = self._samples[0], self._samples[-1]
        return (new[name] - old[name]) / (now - before) if now > before else 0.0

    def seconds_left(self, total: float) -> float | None:
        """Until `total` steps at the present rate; None if nothing has moved yet."""
        rate = self.rate("steps")
        return max(total - self.counts["steps"], 0.0) / rate if rate > 0 else None


class Memory:
    """RAM of this process and its children, and memory of the GPU in use; asked at most once a second."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._children: list[psutil.Process] = []
        self._next = self._next_children = 0.0
        self.ram = self.ram_peak = self.gpu = 0

    def refresh(self) -> None:
        """Update `ram`, `ram_peak` and `gpu` [bytes]."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + 1.0
        if now >= self._next_children:  # walks all of /proc
            self._next_children = now + 5.0
            self._children = self._process.children(recursive=True)
        self.ram = self._process.memory_info().rss + sum(map(_own, self._children))
        self.ram_peak = max(self.ram_peak, self.ram)
        self.gpu = _gpu_bytes()


def _own(process: psutil.Process) -> int:
    """Memory of a child without pages it shares with others (libraries, shared memory)."""
    try:
        info = process.memory_info()
    except psutil.Error:
        return 0
    return info.rss - getattr(info, "shared", 0)


def _gpu_bytes() -> int:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return sum(torch.cuda.memory_reserved(i) for i in range(torch.cuda.device_count()))
