"""A server on a free port of this machine, in a thread, and players that speak its protocol."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from playing import catch
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from oneiro.play.doors import Doors
from oneiro.play.limits import Limits
from oneiro.play.played_run import PlayedRun
from oneiro.play.seat import House
from oneiro.play.server import prepare


@contextmanager
def served(*runs: PlayedRun, doors: Doors | None = None, **limits: Any) -> Iterator[tuple[House, int]]:
    """The house and the port."""
    house = House(runs or (catch(),), Limits(**limits))
    server, listener = prepare(house, doors or Doors(), 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield house, listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        house.close()
    assert not thread.is_alive()


class Guest:
    """One player."""

    def __init__(
        self,
        port: int,
        *,
        says_hello: bool = True,
        begins_anywhere: bool = False,
        token: str = "",
        **options: Any,
    ) -> None:
        self.stack = ExitStack()
        self.socket: ClientConnection = self.stack.enter_context(
            connect(f"ws://127.0.0.1:{port}/play", max_size=None, **options)
        )
        self.welcome: dict[str, Any] = {}
        if says_hello:
            self.say({"type": "hello", "token": token})
            self.welcome = self.hear()
            self.first = self.hear()
            if not begins_anywhere:
                self.first = self.ask("start", episode=3, row=2)

    def __enter__(self) -> "Guest":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def say(self, message: Any) -> None:
        self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def hear(self) -> dict[str, Any]:
        """The next message; of a binary one the head, with the rest under "blob"."""
        data = self.socket.recv(timeout=30)
        if isinstance(data, str):
            return json.loads(data)
        length = int.from_bytes(data[:4], "big")
        return json.loads(data[4 : 4 + length]) | {"blob": data[4 + length :]}

    def ask(self, type: str, /, **fields: Any) -> dict[str, Any]:
        """What ends the answer: a frame, a film, suggestions or an error."""
        self.say({"type": type, **fields})
        answer = self.hear()
        return self.hear() if answer["type"] == "settings" else answer

    def closing(self) -> tuple[int, str]:
        """Code and reason with which the server closes."""
        with suppress(ConnectionClosed):
            while True:
                self.socket.recv(timeout=30)
        return self.socket.close_code or 0, self.socket.close_reason or ""
