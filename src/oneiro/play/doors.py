"""Who may come in: which names this server answers to, pages of which origin may open its sockets, and the token.

A page of another site can send requests to this machine, and a name that was rebound to 127.0.0.1 makes its socket look
like one of our own. So the Host a request names must be one of ours, and its Origin, if it has one, the same.
"""

import hmac
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from oneiro.errors import OneiroError
from oneiro.play.messages import LONGEST_TOKEN

LOCAL = ("localhost", "127.0.0.1", "::1")
ANYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""Hosts that stand for all addresses of this machine, and one of those."""


@dataclass(frozen=True, kw_only=True)
class Doors:
    """Of a server that listens on `host`."""

    host: str = "127.0.0.1"
    token: str = ""
    """What a player has to say first; "" where none is asked for."""
    names: tuple[str, ...] = ()
    """Further names of this machine."""

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and len(self.token) < 8:
            raise OneiroError(
                f"--host {self.host} can be reached by others: give a --token of at least 8 characters, for "
                'example --token "$(openssl rand -hex 16)". Everything is sent unencrypted'
            )
        if len(self.token) > LONGEST_TOKEN:
            raise OneiroError(f"--token must have at most {LONGEST_TOKEN} characters, got {len(self.token)}")

    def refuses(self, headers: Mapping[str, str]) -> str | None:
        """Why a request with these headers (lower case) is not let in; None if it is."""
        named = headers.get("host", "")
        name = _name(named)
        if not self._answers_to(name):
            return f"this server does not answer to the name {name[:60]!r}"
        origin = headers.get("origin")
        if origin is not None and _place(origin) != named.lower():
            return "a page of another site may not connect"
        return None

    def address(self, port: int) -> str:
        """What to open; the token is behind a #, so that it is in no log."""
        host = ANYWHERE.get(self.host, self.host)
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}/" + (
            f"#token={quote(_bytes(self.token), safe='')}" if self.token else ""
        )

    def knows(self, token: str) -> bool:
        """Compared in constant time."""
        return not self.token or hmac.compare_digest(_bytes(token), _bytes(self.token))

    def _answers_to(self, name: str) -> bool:
        if name in {*LOCAL, self.host.lower(), *(own.lower() for own in self.names)}:
            return True
        if is_loopback(self.host):
            return False
        return _is_address(name) or name == socket.gethostname().lower()  # an address cannot be rebound


def is_loopback(host: str) -> bool:
    """True if only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name(named: str) -> str:
    """localhost:8000 -> localhost; [::1]:8000 -> ::1."""
    try:
        return (urlsplit(f"//{named}").hostname or "").lower()
    except ValueError:
        return ""


def _place(origin: str) -> str | None:
    """http://localhost:8000 -> localhost:8000; None if it is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _bytes(token: str) -> bytes:
    return token.encode(errors="surrogatepass")  # JSON may hold what is no text


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
