"""`Limits`: what one person may take of the machine, and all of them together."""

import time
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of the server. Whoever goes beyond one is told so; the others do not notice."""

    sessions: int = 8  # people who play at the same time
    environments: int = 2  # real games that run at the same time
    idle_seconds: float = 600.0  # without a message, after which a session ends
    session_seconds: float = 4 * 3600.0  # after which a session ends
    history_mib: int = 64  # of one session's frames and states; older ones are let go
    messages_per_second: float = 120.0  # of one session, on average
    message_bytes: int = 4096  # of one message
    film_frames: int = 600  # of one recording
    horizon: int = 100_000  # longest dream, steps

    def __post_init__(self) -> None:
        for name in ("sessions", "history_mib", "message_bytes", "film_frames", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.environments < 0:
            raise ValueError(f"environments must not be negative, got {self.environments}")
        for name in ("idle_seconds", "session_seconds", "messages_per_second"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    @property
    def history_bytes(self) -> int:
        """Of one session."""
        return self.history_mib << 20


class Rate:
    """Counts events against a rate; two seconds' worth may come at once."""

    def __init__(self, per_second: float) -> None:
        self.per_second, self._left, self._at = per_second, 2 * per_second, time.monotonic()

    def allows(self) -> bool:
        """Count one event; False if it is one too many."""
        now = time.monotonic()
        self._left = min(2 * self.per_second, self._left + (now - self._at) * self.per_second)
        self._at = now
        self._left -= 1
        return self._left >= 0
