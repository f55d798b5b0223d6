"""`House`: what all players share. `Seat`: one player's session and real game, and the answers they get.

Everything that takes time is done in threads: dreams in one (torch uses all cores for each step, and its random numbers
have one owner at a time), real games in as many as there may be, films in another. A player has one job at a time, one
step or one beginning of a dream, so nobody waits for more than one of each of the others.
"""

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from oneiro.errors import OneiroError
from oneiro.play.history import Frame
from oneiro.play.limits import Limits
from oneiro.play.messages import Change, Hello, Malformed, Message, Record, Rewind, Start, Step, Suggest
from oneiro.play.pictures import encode, picture_name, png
from oneiro.play.played_run import PlayedRun
from oneiro.play.real import RealGame
from oneiro.play.recording import film, kinds
from oneiro.play.session import Opening, Session
from oneiro.play.starts import Place

Result = TypeVar("Result")
SUGGESTIONS = 12


class House:
    """The runs, the threads, and who is there."""

    def __init__(self, runs: Sequence[PlayedRun], limits: Limits | None = None) -> None:
        for other in runs[1:]:
            runs[0].require_alike(other)
        self.runs, self.limits = tuple(runs), limits or Limits()
        self.players = self.games = self._welcomed = 0
        self._dreams = ThreadPoolExecutor(1, "dream")
        self._films = ThreadPoolExecutor(1, "film")
        self._reals = ThreadPoolExecutor(max(1, self.limits.environments), "real")

    def enter(self) -> "Seat":
        """A seat for one more player; OneiroError if all are taken. `Seat.leave` gives it back."""
        if self.players >= self.limits.sessions:
            raise OneiroError(f"all {self.limits.sessions} places are taken; try again later")
        self.players += 1
        self._welcomed += 1
        return Seat(self, self._welcomed)

    async def dreaming(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """In the thread that dreams."""
        return await asyncio.get_running_loop().run_in_executor(self._dreams, function, *arguments)

    async def playing(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """In a thread that waits for a real game."""
        return await asyncio.get_running_loop().run_in_executor(self._reals, function, *arguments)

    async def filming(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """In the thread that makes films."""
        return await asyncio.get_running_loop().run_in_executor(self._films, function, *arguments)

    def close(self) -> None:
        """Wait for the threads."""
        for pool in (self._dreams, self._films, self._reals):
            pool.shutdown(cancel_futures=True)


class Seat:
    """One player."""

    def __init__(self, house: House, number: int) -> None:
        self.house, self.number = house, number
        self.session = Session(house.runs, house.limits, seed=time.time_ns() % 2**31 + number)
        self.real: RealGame | None = None

    async def welcome(self) -> list[str | bytes]:
        """What the page needs to know, and the first frame."""
        frame = await self._start()
        return [json.dumps(self._about()), self._pack(frame)]

    async def answer(self, message: Message) -> list[str | bytes]:
        """One reply or more; what a player can mend is said as {"type": "error"}."""
        try:
            return await self._answer(message)
        except Malformed:
            raise
        except (OneiroError, ValueError) as error:
            return [json.dumps({"type": "error", "text": str(error)})]

    async def leave(self) -> None:
        """Give back the place and end the real game."""
        self.house.players -= 1
        await self._end_real()

    async def _answer(self, message: Message) -> list[str | bytes]:
        dreaming, session = self.house.dreaming, self.session
        match message:
            case Step(action):
                return [await self._step(action)]
            case Rewind(number):
                return [self._pack(session.rewind(number))]
            case Start(place):
                frame = await self._start(Place(*place) if place else None)
                if self.real is not None:
                    frame = session.attach_real(await self.house.playing(self.real.begin))
                return [self._pack(frame)]
            case Change(settings, real):
                await dreaming(lambda: session.change(**settings))
                if real is not None:
                    await (self._begin_real() if real else self._end_real())
                return [json.dumps(self._settings()), self._pack(session.frame)]
            case Suggest():
                places = [await dreaming(session.suggestion, await self._find()) for _ in range(SUGGESTIONS)]
                shown = [
                    {"episode": p.episode, "row": p.row, "png": b64encode(png(x)).decode()} for p, x in places
                ]
                return [json.dumps({"type": "suggestions", "places": shown})]
            case Record():
                return [await self._film(message)]
            case Hello():
                raise Malformed("hello is said once")

    async def _find(self, place: Place | None = None) -> Opening:
        """In the thread of the dreams where it only reads, else where real games are waited for."""
        thread = self.house.playing if self.session.plays_to_begin else self.house.dreaming
        return await thread(self.session.find, place)

    async def _start(self, place: Place | None = None) -> Frame:
        return await self.house.dreaming(self.session.open, await self._find(place))

    async def _step(self, action: tuple[float, ...] | None) -> bytes:
        began = time.perf_counter()
        frame = await self.house.dreaming(self.session.step, action)
        if self.real is not None and frame.action is not None:
            frame = self.session.attach_real(await self.house.playing(self.real.step, frame.action))
        return self._pack(frame, 1000 * (time.perf_counter() - began))

    async def _film(self, wanted: Record) -> bytes:
        history, limit = self.session.history, self.house.limits.film_frames
        first, last = max(wanted.first, history.first), min(wanted.last, history.last)
        if last < first:
            raise OneiroError(f"these frames are not kept; kept are {history.first} to {history.last}")
        first = max(first, last - limit + 1)
        frames = [history[number] for number in range(first, last + 1)]
        data = await self.house.filming(film, frames, wanted.kind, wanted.fps)
        return _message({"type": "film", "kind": wanted.kind, "first": first, "last": last}, [data])

    async def _begin_real(self) -> None:
        if self.real is not None:
            return
        if self.house.games >= self.house.limits.environments:
            raise OneiroError(f"{self.house.games} real games are running, which is the limit of this server")
        run = self.house.runs[0]
        if picture_name(run.spaces) is None:
            raise OneiroError("the real game shows no pictures")
        run.config.require()
        self.house.games += 1
        try:
            self.real = await self.house.playing(RealGame, run.config, run.spaces, self.number)
        except BaseException:
            self.house.games -= 1
            raise
        try:
            self.session.attach_real(await self.house.playing(self.real.begin))
        except BaseException:
            await self._end_real()
            raise

    async def _end_real(self) -> None:
        if self.real is not None:
            real, self.real = self.real, None
            self.house.games -= 1
            await asyncio.shield(self.house.playing(real.close))

    def _about(self) -> dict[str, Any]:
        run, limits = self.house.runs[0], self.house.limits
        return self._settings() | {
            "type": "welcome",
            "runs": [
                {"name": r.name, "system": type(r.agent.world).__name__, "draws": r.draws}
                for r in self.house.runs
            ],
            "game": run.config.describe(),
            "keys": run.keys.to_json(),
            "knobs": [vars(knob) for knob in self.session.knobs.values()],
            "starts": run.starts.source,
            "has_real": limits.environments > 0 and _can_be_played(run),
            "films": kinds(),
            "film_frames": limits.film_frames,
            "max_horizon": limits.horizon,
        }

    def _settings(self) -> dict[str, Any]:
        settings = vars(self.session.settings)
        return {"type": "settings", "settings": settings, "real": self.real is not None}

    def _pack(self, frame: Frame, milliseconds: float | None = None) -> bytes:
        session, blobs, lanes = self.session, [], []
        for lane in frame.lanes:
            lanes.append(
                _shown(lane.picture, blobs)
                | {
                    "reward": lane.reward,
                    "cont": lane.cont,
                    "value": lane.value,
                    "ended": lane.ended,
                    "ms": lane.milliseconds,
                }
            )
        real = None
        if frame.real is not None:
            shown = frame.real
            real = _shown(shown.picture, blobs) | {
                "reward": shown.reward,
                "score": shown.score,
                "steps": shown.steps,
                "over": shown.over,
            }
        head = {
            "type": "frame",
            "number": frame.number,
            "first": session.history.first,
            "last": session.history.last,
            "action": frame.action,
            "by_agent": frame.by_agent,
            "lanes": lanes,
            "real": real,
            "ms": milliseconds,
            "place": [session.place.episode, session.place.row],
        }
        return _message(head, blobs)


def _can_be_played(run: PlayedRun) -> bool:
    """True if its game is installed and shows pictures."""
    if not run.config.is_playable or picture_name(run.spaces) is None:
        return False
    try:
        run.config.require()
    except OneiroError:
        return False
    return True


def _shown(picture: Any, blobs: list[bytes]) -> dict[str, Any]:
    form, data = encode(picture)
    blobs.append(data)
    return {"width": picture.shape[1], "height": picture.shape[0], "form": form, "bytes": len(data)}


def _message(head: dict[str, Any], blobs: Sequence[bytes]) -> bytes:
    """4 bytes length of the head, the head as JSON, then what it describes."""
    text = json.dumps(head).encode()
    return b"".join([len(text).to_bytes(4, "big"), text, *blobs])
