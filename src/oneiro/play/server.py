"""The web server: a page, its script and style, and one socket for each player.

Close codes: 1008 the message, the rate or the token was wrong; 1013 all places are taken; 1001 idle for too long, or
the session is over; 1011 a failure of this server, which is in its log. The reason says which.
"""

import asyncio
import importlib.util
import json
import logging
import secrets
import socket
import time
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from typing import Any

from oneiro.errors import MissingExtra, OneiroError
from oneiro.play.doors import Doors
from oneiro.play.limits import Limits, Rate
from oneiro.play.messages import Hello, Malformed, parse
from oneiro.play.played_run import PlayedRun
from oneiro.play.seat import House, Seat

logger = logging.getLogger("oneiro")
POLICY, LATER, AWAY, FAILURE = 1008, 1013, 1001, 1011
HELLO_SECONDS = 10.0
SEND_SECONDS = 30.0
REASON_BYTES = 120
"""The protocol allows 123."""
PAGE = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/keyboard.js": ("keyboard.js", "text/javascript"),
    "/plots.js": ("plots.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
}
"""All there is to fetch, by path."""
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Closing(Exception):  # noqa: N818 - not an error of ours
    """The socket is to be closed, for this reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


def build_app(house: House, doors: Doors) -> Any:
    """The ASGI application, for the server of `prepare`; MissingExtra without the extra `play`."""
    require()
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route, WebSocketRoute

    static = files("oneiro.play").joinpath("static")
    contents = {path: static.joinpath(name).read_bytes() for path, (name, _) in PAGE.items()}

    async def page(request: Any) -> Any:
        path = request.url.path
        return Response(contents[path], media_type=PAGE[path][1], headers=HEADERS)

    async def play(websocket: Any) -> None:
        await websocket.accept()
        try:
            await _converse(_Line(websocket), house, doors)
        except Closing as closing:
            await _hang_up(websocket, closing)

    routes = [Route(path, page, methods=["GET"]) for path in PAGE]
    return _Guarded(Starlette(routes=[*routes, WebSocketRoute("/play", play)]), doors)


def require() -> None:
    """MissingExtra unless everything the server needs is installed."""
    for package in ("starlette", "uvicorn", "websockets"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "play")


def serve(runs: Sequence[PlayedRun], doors: Doors, port: int, limits: Limits) -> None:
    """Serve until interrupted; prints the address. OneiroError if the port is taken."""
    house = House(runs, limits)
    try:
        server, listener = prepare(house, doors, port)
        print(f"play at {doors.address(listener.getsockname()[1])}  (Ctrl-C ends it)", flush=True)
        server.run(sockets=[listener])
    finally:
        house.close()


def prepare(house: House, doors: Doors, port: int) -> tuple[Any, socket.socket]:
    """A server of uvicorn and the socket it is to `run` with; port 0 is any that is free."""
    require()
    import uvicorn

    from oneiro.play.connections import Connection, Strangers

    limits = house.limits
    family = socket.AF_INET6 if ":" in doors.host else socket.AF_INET
    try:
        listener = socket.create_server((doors.host, port), family=family)
    except OSError as error:
        raise OneiroError(
            f"{doors.host}:{port} cannot be listened on ({error.strerror}); choose another --port or --host"
        ) from None
    connection: Any = partial(Connection, strangers=Strangers(3 * limits.sessions + 20))
    config = uvicorn.Config(
        build_app(house, doors),
        http=connection,
        ws="websockets-sansio",
        ws_max_size=limits.message_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        timeout_graceful_shutdown=3,
        access_log=False,
        server_header=False,
        log_level="warning",
        lifespan="off",
    )
    return uvicorn.Server(config), listener


class _Guarded:
    """Lets in only requests that `Doors` lets in."""

    def __init__(self, app: Any, doors: Doors) -> None:
        self.app, self.doors = app, doors

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            reason = self.doors.refuses(headers)
            if reason is not None and scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": POLICY, "reason": reason[:REASON_BYTES]})
                return
            if reason is not None:
                plain = [(b"content-type", b"text/plain; charset=utf-8")]
                await send({"type": "http.response.start", "status": 403, "headers": plain})
                await send({"type": "http.response.body", "body": reason.encode()})
                return
        await self.app(scope, receive, send)


class _Line:
    """A socket: texts in, texts and bytes out."""

    def __init__(self, websocket: Any) -> None:
        self.websocket, self.visit = websocket, websocket.scope["state"]["visit"]

    async def hear(self, seconds: float, silence: str) -> str | None:
        """The next message; None if the player has gone. Closing after so many seconds of silence."""
        try:
            event = await asyncio.wait_for(self.websocket.receive(), seconds)
        except TimeoutError:
            raise Closing(AWAY, silence) from None
        if event["type"] == "websocket.disconnect":
            return None
        if event.get("text") is None:
            raise Closing(POLICY, "malformed message: not text")
        return event["text"]

    async def say(self, replies: Sequence[str | bytes]) -> None:
        """Closing if the player does not take them."""
        for reply in replies:
            send = self.websocket.send_text if isinstance(reply, str) else self.websocket.send_bytes
            try:
                await asyncio.wait_for(send(reply), SEND_SECONDS)
            except TimeoutError:
                raise Closing(AWAY, "nobody takes what is sent") from None


async def _converse(line: _Line, house: House, doors: Doors) -> None:
    limits = house.limits
    text = await line.hear(HELLO_SECONDS, "nothing was said")
    if text is None:
        return
    hello = _read(text, limits)
    if not isinstance(hello, Hello):
        raise Closing(POLICY, "malformed message: hello comes first")
    if not doors.knows(hello.token):
        await asyncio.sleep(0.5 + secrets.randbelow(500) / 1000)
        raise Closing(POLICY, "the token is wrong")
    try:
        seat = house.enter()
    except OneiroError as error:
        raise Closing(LATER, str(error)) from None
    line.visit.let_in()
    try:
        await _play(line, seat, limits)
    except (Closing, asyncio.CancelledError):
        raise
    except Exception as error:
        if _has_gone(error):
            return
        code = secrets.token_hex(3)
        logger.exception("play: session %d failed (%s)", seat.number, code)
        raise Closing(FAILURE, f"this server failed; its log has more, under {code}") from None
    finally:
        line.visit.see_off()
        await seat.leave()


async def _play(line: _Line, seat: Seat, limits: Limits) -> None:
    """Message, answer, message, answer, until somebody leaves."""
    over = time.monotonic() + limits.session_seconds
    rate = Rate(limits.messages_per_second)
    try:
        await line.say(await seat.welcome())
    except OneiroError as error:
        await line.say([json.dumps({"type": "error", "text": str(error)})])
        raise Closing(LATER, "no dream can begin") from None
    while True:
        left = over - time.monotonic()
        is_last = left < limits.idle_seconds
        silence = (
            f"a session lasts at most {limits.session_seconds:g} seconds" if is_last else "idle for too long"
        )
        if left <= 0:
            raise Closing(AWAY, silence)
        text = await line.hear(min(limits.idle_seconds, left), silence)
        if text is None:
            return
        if not rate.allows():
            raise Closing(POLICY, f"more than {limits.messages_per_second:g} messages a second")
        try:
            await line.say(await seat.answer(_read(text, limits)))
        except Malformed as error:
            raise Closing(POLICY, f"malformed message: {error}") from None


def _read(text: str, limits: Limits) -> Any:
    if len(text) > limits.message_bytes:
        raise Closing(POLICY, f"malformed message: more than {limits.message_bytes} bytes")
    try:
        return parse(text)
    except Malformed as error:
        raise Closing(POLICY, f"malformed message: {error}") from None


def _has_gone(error: Exception) -> bool:
    """True for what starlette raises when the other end is closed."""
    from starlette.websockets import WebSocketDisconnect

    return isinstance(error, WebSocketDisconnect | ConnectionError)


async def _hang_up(websocket: Any, closing: Closing) -> None:
    reason = closing.reason.encode(errors="replace")[:REASON_BYTES].decode(errors="ignore")
    try:
        await websocket.close(code=closing.code, reason=reason)
    except Exception as error:
        if not (isinstance(error, RuntimeError) or _has_gone(error)):
            raise
        logger.debug("play: the socket was closed before it could be told: %s", reason)
