"""Connections of people who have not been let in: they have little time, and there are few of them. Needs uvicorn.

connect --> stranger --hello--> let in --end of the session--> stranger --> gone

uvicorn itself counts connections that never say anything until others are refused. Here the oldest stranger makes room.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

STRANGER_SECONDS = 15.0
"""Longer than the page needs to load, and than it has to say hello."""


class Strangers:
    """At most `most` transports at the same time."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._timers: dict[asyncio.Transport, asyncio.TimerHandle] = {}

    def add(self, transport: asyncio.Transport) -> None:
        """It is cut off in a while, and the oldest at once if there are too many."""
        self.remove(transport)
        loop = asyncio.get_running_loop()
        self._timers[transport] = loop.call_later(STRANGER_SECONDS, self._cut, transport)
        if len(self._timers) > self.most:
            self._cut(next(iter(self._timers)))

    def remove(self, transport: asyncio.Transport) -> None:
        """It is gone, or its player has been let in."""
        timer = self._timers.pop(transport, None)
        if timer is not None:
            timer.cancel()

    def _cut(self, transport: asyncio.Transport) -> None:
        self.remove(transport)
        transport.abort()  # `close` would wait for those who do not read


class Visit:
    """One connection, for the application: `scope["state"]["visit"]`."""

    def __init__(self, strangers: Strangers) -> None:
        self.strangers = strangers
        self.transport: asyncio.Transport | None = None

    def let_in(self) -> None:
        """Its player has said hello and has a seat."""
        assert self.transport is not None
        self.strangers.remove(self.transport)

    def see_off(self) -> None:
        """Its player has no seat any more."""
        assert self.transport is not None
        self.strangers.add(self.transport)


class Connection(H11Protocol):
    """A connection of uvicorn that begins as a stranger's. As a socket's it ends elsewhere: its timer finds it gone."""

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: Any = None,
        *,
        strangers: Strangers,
    ) -> None:
        self.visit = Visit(strangers)
        super().__init__(config, server_state, {**app_state, "visit": self.visit}, _loop)

    def connection_made(self, transport: asyncio.Transport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self.visit.transport = transport
        self.visit.strangers.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(exc)
        self.visit.strangers.remove(self.transport)
