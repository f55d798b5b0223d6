"""Connections on which nobody says hello: they lock nobody out and are cut off; players are not."""

import socket
import urllib.request
from contextlib import ExitStack, suppress

import pytest
from playing import catch
from served import Guest, served

from oneiro.play import connections


def is_cut_off(silent: socket.socket, seconds: float) -> bool:
    """True if the other end hangs up before so many seconds have passed."""
    silent.settimeout(seconds)
    with suppress(ConnectionError):
        try:
            return not silent.recv(1)
        except TimeoutError:
            return False
    return True


def test_silent_connections_lock_nobody_out() -> None:
    with served(catch(), sessions=1) as (_, port), ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(60)]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
            assert answer.status == 200
        with Guest(port) as guest:
            assert guest.ask("step", action=[0])["number"] == 1
        assert is_cut_off(silent[0], 10), "only 23 are kept, the newest"
        assert not is_cut_off(silent[-1], 0.1)


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "], ids=["silent", "slow"]
)
def test_who_says_no_hello_is_cut_off_and_players_are_not(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STRANGER_SECONDS", 2.0)
    with served(catch()) as (_, port), Guest(port) as guest:
        with socket.create_connection(("127.0.0.1", port)) as silent:
            silent.sendall(said)
            assert is_cut_off(silent, 20)
        assert guest.ask("step", action=[0])["number"] == 1
