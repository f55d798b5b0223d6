"""The server over real sockets: the protocol, who is let in, limits, and that nobody can stop another."""

import base64
import io
import json
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playing import Blind, Fast, catch, dodge
from served import Guest, served
from websockets.exceptions import ConnectionClosed, InvalidStatus

from oneiro.errors import MissingExtra, OneiroError
from oneiro.play import server
from oneiro.play.doors import Doors
from oneiro.play.played_run import PlayedRun
from oneiro.testing import DodgeOracle


def get(port: int, path: str = "/", **headers: str) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), {}


def test_a_game_from_hello_to_a_branch() -> None:
    with served(catch()) as (_, port), Guest(port) as guest:
        assert guest.welcome["runs"] == [{"name": "catch", "system": "CatchOracle", "draws": True}]
        assert [b["action"] for b in guest.welcome["keys"]["bindings"]] == [[0.0], [1.0], [2.0]]
        assert guest.first["number"] == 0
        lane = guest.first["lanes"][0]
        assert (lane["width"], lane["height"], lane["form"]) == (64, 64, "rgb")
        assert len(guest.first["blob"]) == lane["bytes"] == 64 * 64 * 3
        frames = [guest.ask("step", action=[0]) for _ in range(3)]
        assert [f["number"] for f in frames] == [1, 2, 3]
        assert all(f["ms"] > 0 and f["action"] == [0.0] for f in frames)
        assert guest.ask("rewind", frame=1)["blob"] == frames[0]["blob"]
        branch = guest.ask("step", action=[2])
        assert (branch["number"], branch["last"]) == (2, 2)
        assert branch["blob"] != frames[1]["blob"]
        again = guest.ask("start", episode=guest.first["place"][0], row=guest.first["place"][1])
        assert again["blob"] == guest.first["blob"]


def test_settings_and_what_is_refused_without_closing() -> None:
    with served(dodge(Fast())) as (_, port), Guest(port) as guest:
        assert [k["name"] for k in guest.welcome["knobs"]] == ["moves"]
        guest.say({"type": "set", "temperature": 0.5, "agent": True, "knobs": {"moves": 2}})
        settings, frame = guest.hear(), guest.hear()
        assert settings["settings"]["temperature"] == 0.5
        assert settings["settings"]["knobs"] == {"moves": 2.0}
        assert frame["number"] == 0
        assert guest.ask("step")["by_agent"]
        for message, words in (
            ({"type": "set", "temperature": 50}, "temperature must lie in 0 to 3"),
            ({"type": "set", "knobs": {"speed": 1}}, "no knob 'speed'"),
            ({"type": "set", "horizon": 0}, "horizon must lie in 1"),
            ({"type": "rewind", "frame": 77}, "frame 77 is not kept"),
        ):
            guest.say(message)
            assert words in guest.hear()["text"]
        guest.ask("set", agent=False)
        assert "shape" in guest.ask("step", action=[0.0, 0.0])["text"]
        assert guest.ask("step", action=[0.0])["number"] == 2


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("{", "not JSON"),
        ("[" * 1500, "not JSON"),
        ('{"type": "step", "action": [NaN]}', "not JSON"),
        ("3", "not an object"),
        ('{"type": "read", "path": "/etc/passwd"}', "unknown type 'read'"),
        ('{"type": "start", "path": "/etc"}', "unknown field 'path'"),
        ('{"type": "start", "episode": 1}', "row must be a whole number"),
        ('{"type": "step", "action": "left"}', "action must be a list"),
        ('{"type": "step", "action": [1e999]}', "action must be a list"),
        ('{"type": "step", "action": [true]}', "action must be a list"),
        (f'{{"type": "step", "action": [1{"0" * 400}]}}', "action must be a list"),
        (f'{{"type": "set", "temperature": 1{"0" * 400}}}', "temperature must be a number"),
        (r'{"type": "set", "knobs": {"\ud800": 1e99}}', "a knob has no such name"),
        (r'{"type": "\ud800"}', "unknown type"),
        ('{"type": "rewind", "frame": -1}', "frame must be a whole number"),
        ('{"type": "set", "temperature": "hot"}', "temperature must be a number"),
        ('{"type": "set", "view": "raw"}', "view must be"),
        ('{"type": "record", "kind": "../x", "first": 0, "last": 1, "fps": 10}', "kind must be"),
        ('{"type": "hello"}', "hello is said once"),
        (b"\x00\x01", "not text"),
    ],
)
def test_a_malformed_message_closes_its_own_socket_with_a_reason(
    message: str | bytes, words: str, house_and_port: Any
) -> None:
    house, port = house_and_port
    with Guest(port) as calm, Guest(port) as guest:
        guest.say(message)
        code, reason = guest.closing()
        assert (code, words in reason) == (1008, True), reason
        assert reason.startswith("malformed message: ")
        assert calm.ask("step", action=[0])["number"] == 1
        wait_until(lambda: house.players == 1)


@pytest.fixture(scope="module")
def house_and_port() -> Any:
    with served(catch()) as both:
        yield both


def wait_until(holds: Any) -> None:
    for _ in range(500):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("did not come about")


def test_a_message_that_is_too_long(house_and_port: Any) -> None:
    with Guest(house_and_port[1]) as guest:
        guest.say(json.dumps({"type": "hello", "token": "x" * 5000}))
        assert guest.closing()[0] in (1008, 1009)


def test_too_many_messages() -> None:
    with served(catch(), messages_per_second=5.0) as (_, port), Guest(port) as calm, Guest(port) as guest:
        with suppress(ConnectionClosed):  # while it still speaks, where the server is the faster one
            for _ in range(40):
                guest.say({"type": "rewind", "frame": 0})
        assert guest.closing() == (1008, "more than 5 messages a second")
        assert calm.ask("step", action=[1])["number"] == 1


def test_idle_sessions_and_long_ones_end() -> None:
    with served(catch(), idle_seconds=1.0) as (house, port):
        with Guest(port) as guest:
            assert guest.closing() == (1001, "idle for too long")
        wait_until(lambda: house.players == 0)
    with served(catch(), session_seconds=1.0) as (_, port), Guest(port, begins_anywhere=True) as guest:
        with suppress(ConnectionClosed):
            for _ in range(1000):
                guest.ask("rewind", frame=0)
                time.sleep(0.01)
        assert guest.closing() == (1001, "a session lasts at most 1 seconds")


def test_places_are_limited_and_given_back() -> None:
    with served(catch(), sessions=1) as (house, port):
        with Guest(port), Guest(port, says_hello=False) as late:
            late.say({"type": "hello"})
            assert late.closing() == (1013, "all 1 places are taken; try again later")
        wait_until(lambda: house.players == 0)
        with Guest(port) as guest:
            assert guest.first["number"] == 0


def test_a_token() -> None:
    with served(catch(), doors=Doors(token="correct horse")) as (_, port):
        for token in ("", "wrong", "correct horsf", "\ud800"):
            with Guest(port, says_hello=False) as guest:
                guest.say({"type": "hello", "token": token})
                assert guest.closing() == (1008, "the token is wrong")
        with Guest(port, says_hello=False) as guest:
            guest.say({"type": "step", "action": [0]})
            assert guest.closing() == (1008, "malformed message: hello comes first")
        with Guest(port, token="correct horse") as guest:
            assert guest.ask("step", action=[0])["number"] == 1


def test_other_hosts_need_a_token() -> None:
    with pytest.raises(OneiroError, match="--token"):
        Doors(host="0.0.0.0")
    with pytest.raises(OneiroError, match="--token"):
        Doors(host="192.168.1.5", token="short")
    assert Doors(host="0.0.0.0", token="long enough").knows("long enough")


@pytest.mark.parametrize(
    ("doors", "address"),
    [
        (Doors(), "http://127.0.0.1:9/"),
        (Doors(host="::1"), "http://[::1]:9/"),
        (Doors(host="0.0.0.0", token="a+b & 100%"), "http://127.0.0.1:9/#token=a%2Bb%20%26%20100%25"),
        (Doors(host="::", token="12345678"), "http://[::1]:9/#token=12345678"),
    ],
)
def test_the_address_that_is_printed(doors: Doors, address: str) -> None:
    assert doors.address(9) == address


def test_a_token_that_nobody_could_say() -> None:
    assert Doors(token="x" * 200).knows("x" * 200)
    with pytest.raises(OneiroError, match="at most 200"):
        Doors(token="x" * 201)


@pytest.mark.parametrize(
    ("doors", "host", "origin", "let_in"),
    [
        (Doors(), "localhost:8765", None, True),
        (Doors(), "127.0.0.1:9", "http://127.0.0.1:9", True),
        (Doors(), "[::1]:9", "http://[::1]:9", True),
        (Doors(), "evil.example:8765", None, False),  # a name that was rebound to this machine
        (Doors(), "evil.example:8765", "http://evil.example:8765", False),
        (Doors(), "localhost:8765", "http://evil.example", False),
        (Doors(), "localhost:8765", "http://localhost:1234", False),
        (Doors(), "localhost:8765", "null", False),
        (Doors(), "localhost:8765", "http://[", False),
        (Doors(), "192.168.1.5:8765", None, False),
        (Doors(), "", None, False),
        (Doors(names=("box.lan",)), "BOX.lan:8765", "http://box.lan:8765", True),
        (Doors(host="0.0.0.0", token="12345678"), "192.168.1.5:8765", None, True),
        (Doors(host="0.0.0.0", token="12345678"), "evil.example", None, False),
    ],
)
def test_names_and_origins(doors: Doors, host: str, origin: str | None, let_in: bool) -> None:
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    assert (doors.refuses(headers) is None) == let_in


def test_the_page_and_nothing_else(house_and_port: Any) -> None:
    port = house_and_port[1]
    status, text, headers = get(port)
    assert (status, "<title>oneiro play</title>" in text) == (200, True)
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["content-type"].startswith("text/html")
    for path, (_, kind) in server.PAGE.items():
        status, text, headers = get(port, path)
        assert (status, headers["content-type"].startswith(kind)) == (200, True)
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text
    for path in ("/static/app.js", "/../pyproject.toml", "/%2e%2e/server.py", "/server.py", "/play"):
        assert get(port, path)[0] in (404, 405, 403)
    assert get(port, Host="evil.example")[0] == 403
    with pytest.raises(InvalidStatus, match="403"):
        Guest(port, origin="http://evil.example")


def test_two_players_are_independent_and_a_slow_film_does_not_stop_the_other() -> None:
    with served(dodge()) as (_, port), Guest(port) as one:
        with Guest(port) as two:
            one.ask("set", past_ends=True)
            two.ask("set", past_ends=True)
            for _ in range(60):
                one.ask("step", action=[1.0])
            assert two.ask("step", action=[0.0])["number"] == 1
            film: list[dict[str, Any]] = []
            maker = threading.Thread(
                target=lambda: film.append(one.ask("record", kind="webp", first=0, last=60, fps=15))
            )
            maker.start()
            for t in range(2, 10):
                assert two.ask("step", action=[0.0])["number"] == t
            maker.join()
        with Image.open(io.BytesIO(film[0]["blob"])) as image:
            assert image.size == (256, 256)
        assert (film[0]["first"], film[0]["last"]) == (0, 60)


def test_a_player_who_leaves_in_mid_step_stops_nobody() -> None:
    with served(catch()) as (house, port), Guest(port) as calm:
        for _ in range(5):
            guest = Guest(port)
            guest.say({"type": "step", "action": [0]})
            guest.socket.socket.close()
        assert calm.ask("step", action=[0])["number"] == 1
        wait_until(lambda: house.players == 1)


def test_a_player_who_leaves_before_the_answer_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("uvicorn.error")
    with served(catch(), doors=Doors(token="correct horse")) as (_, port):
        log.addHandler(caplog.handler)
        with Guest(port, says_hello=False) as guest:
            guest.say({"type": "hello", "token": "wrong"})
            guest.socket.socket.shutdown(socket.SHUT_RDWR)
        time.sleep(1.2)  # the server takes up to a second to say no
    log.removeHandler(caplog.handler)
    assert caplog.text == ""


class Broken(DodgeOracle):
    """Fails at every step to the right."""

    def step(self, state: Any, action: Any, temperature: float = 1.0) -> Any:
        if action[0, 0] > 0:
            raise RuntimeError("a bug")
        return super().step(state, action, temperature)


def test_a_failure_ends_one_session_and_says_where_to_look(caplog: pytest.LogCaptureFixture) -> None:
    with served(dodge(Broken())) as (_, port), Guest(port) as calm, Guest(port) as guest:
        guest.say({"type": "step", "action": [1.0]})
        code, reason = guest.closing()
        assert code == 1011
        assert "its log has more" in reason
        assert "a bug" not in reason
        assert calm.ask("step", action=[0.0])["number"] == 1
    assert "a bug" in caplog.text


@pytest.mark.parametrize(("kind", "magic"), [("gif", b"GIF89a"), ("mp4", b"ftyp")])
def test_films(kind: str, magic: bytes, house_and_port: Any) -> None:
    if kind == "mp4":
        pytest.importorskip("av")
    with Guest(house_and_port[1]) as guest:
        for _ in range(3):
            guest.ask("step", action=[0])
        film = guest.ask("record", kind=kind, first=0, last=3, fps=10)
        assert magic in film["blob"][:12]
        if kind == "gif":
            with Image.open(io.BytesIO(film["blob"])) as image:
                assert image.n_frames == 4  # pyright: ignore[reportAttributeAccessIssue]
        assert "not kept" in guest.ask("record", kind=kind, first=50, last=60, fps=10)["text"]


def test_places_to_begin(house_and_port: Any) -> None:
    with Guest(house_and_port[1]) as guest:
        places = guest.ask("suggest")["places"]
        assert len(places) == 12
        chosen = places[3]
        frame = guest.ask("start", episode=chosen["episode"], row=chosen["row"])
        with Image.open(io.BytesIO(base64.b64decode(chosen["png"]))) as image:
            assert np.asarray(image).tobytes() == frame["blob"]


def test_the_real_game_beside_it() -> None:
    with served(catch(), environments=1) as (house, port), Guest(port) as guest, Guest(port) as other:
        frame = guest.ask("set", real=True)
        assert frame["real"]["steps"] == 0
        assert len(frame["blob"]) == 2 * 64 * 64 * 3
        assert guest.ask("step", action=[0])["real"]["steps"] == 1
        assert "1 real games are running" in other.ask("set", real=True)["text"]
        assert guest.ask("start")["real"]["steps"] == 0
        assert guest.ask("set", real=False)["real"] is not None, "the frame stays as it was"
        assert guest.ask("step", action=[0])["real"] is None
        assert house.games == 0
        assert other.ask("set", real=True)["real"]["steps"] == 0
    wait_until(lambda: house.games == 0)


def test_two_dreams(house_and_port: Any) -> None:
    runs: tuple[PlayedRun, ...] = (catch(), catch(Blind(), name="blind"))
    with served(*runs) as (_, port), Guest(port) as guest:
        assert [r["draws"] for r in guest.welcome["runs"]] == [True, False]
        lanes = guest.ask("step", action=[0])["lanes"]
        assert [lane["width"] for lane in lanes] == [64, 8]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"oneiro\[play\]"):
        server.require()


def test_a_port_that_is_taken(house_and_port: Any) -> None:
    house, port = house_and_port
    with pytest.raises(OneiroError, match="another --port"):
        server.prepare(house, Doors(), port)
