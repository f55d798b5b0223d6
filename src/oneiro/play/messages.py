"""What the page may say: one JSON object a message, checked field by field; anything else is `Malformed`."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

LONGEST_ACTION = 64
LONGEST_TOKEN = 200
Kind = Literal["webp", "gif", "mp4"]


class Malformed(ValueError):  # noqa: N818 - what the message is
    """The message is none of the protocol; the text says why and is sent back as the reason of closing."""


@dataclass(frozen=True)
class Hello:
    """The first message."""

    token: str = ""


@dataclass(frozen=True)
class Step:
    """One step; without an action the agent has to be on."""

    action: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Change:
    """Settings, by name; `real` starts or ends the real game."""

    settings: dict[str, Any] = field(default_factory=dict)
    real: bool | None = None


@dataclass(frozen=True)
class Start:
    """A new dream; without a place anywhere."""

    place: tuple[int, int] | None = None


@dataclass(frozen=True)
class Suggest:
    """Asks for places where a dream may begin."""


@dataclass(frozen=True)
class Rewind:
    """Go to a frame."""

    frame: int


@dataclass(frozen=True)
class Record:
    """Asks for a film of the frames first to last."""

    kind: Kind
    first: int
    last: int
    fps: float


Message = Hello | Step | Change | Start | Suggest | Rewind | Record


def parse(text: str) -> Message:
    """A message of the page."""
    try:
        data = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Malformed("not JSON") from None
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise Malformed("not an object with a type")
    kind = data.pop("type")
    if kind not in READERS:
        raise Malformed(f"unknown type {kind[:20]!r}")
    allowed, read = READERS[kind]
    if unknown := set(data) - allowed:
        raise Malformed(f"unknown field {min(unknown)[:20]!r} in {kind!r}")
    return read(data)


def _refuse(name: str) -> None:
    raise ValueError(name)


def _number(data: dict[str, Any], name: str, low: float = -1e9, high: float = 1e9) -> float:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Malformed(f"{name} must be a number in {low:g} to {high:g}")
    return float(value)


def _whole(data: dict[str, Any], name: str, high: float = 2**53) -> int:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
        raise Malformed(f"{name} must be a whole number from 0")
    return value


def _flag(data: dict[str, Any], name: str) -> bool:
    if not isinstance(data[name], bool):
        raise Malformed(f"{name} must be true or false")
    return data[name]


def _hello(data: dict[str, Any]) -> Hello:
    token = data.get("token", "")
    if not isinstance(token, str) or len(token) > LONGEST_TOKEN:
        raise Malformed("token must be a short text")
    return Hello(token)


def _step(data: dict[str, Any]) -> Step:
    action = data.get("action")
    if action is None:
        return Step()
    if not isinstance(action, list) or not 1 <= len(action) <= LONGEST_ACTION:
        raise Malformed("action must be a list of numbers")
    for x in action:
        if isinstance(x, bool) or not isinstance(x, int | float) or not abs(x) <= 1e9:
            raise Malformed("action must be a list of numbers")
    return Step(tuple(float(x) for x in action))


def _change(data: dict[str, Any]) -> Change:
    settings: dict[str, Any] = {}
    if "temperature" in data:
        settings["temperature"] = _number(data, "temperature", 0, 100)
    if "horizon" in data:
        settings["horizon"] = _whole(data, "horizon")
    for name in ("agent", "explore", "past_ends", "new_luck"):
        if name in data:
            settings[name] = _flag(data, name)
    if "view" in data:
        if data["view"] not in ("image", "feature"):
            raise Malformed("view must be image or feature")
        settings["view"] = data["view"]
    if "knobs" in data:
        knobs = data["knobs"]
        if not isinstance(knobs, dict) or len(knobs) > 20:
            raise Malformed("knobs must be an object of numbers")
        if not all(name.isidentifier() and name.isascii() for name in knobs):
            raise Malformed("a knob has no such name")
        settings["knobs"] = {name: _number(knobs, name) for name in knobs}
    return Change(settings, _flag(data, "real") if "real" in data else None)


def _start(data: dict[str, Any]) -> Start:
    return Start((_whole(data, "episode"), _whole(data, "row")) if data else None)


def _record(data: dict[str, Any]) -> Record:
    kind = data.get("kind")
    if kind not in ("webp", "gif", "mp4"):
        raise Malformed("kind must be webp, gif or mp4")
    return Record(kind, _whole(data, "first"), _whole(data, "last"), _number(data, "fps", 1, 60))


READERS: dict[str, tuple[set[str], Callable[[dict[str, Any]], Message]]] = {
    "hello": ({"token"}, _hello),
    "step": ({"action"}, _step),
    "set": (
        {"temperature", "horizon", "agent", "explore", "past_ends", "new_luck", "view", "knobs", "real"},
        _change,
    ),
    "start": ({"episode", "row"}, _start),
    "suggest": (set(), lambda data: Suggest()),
    "rewind": ({"frame"}, lambda data: Rewind(_whole(data, "frame"))),
    "record": ({"kind", "first", "last", "fps"}, _record),
}
