"""Seats in one house, without a server: what players share is given back, and nobody waits for long."""

import asyncio
import importlib.util
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from playing import STAY, catch

from oneiro.envs.toy import ToyConfig
from oneiro.errors import MissingExtra, OneiroError
from oneiro.play import seat
from oneiro.play.limits import Limits
from oneiro.play.messages import Change, Start, Step, Suggest
from oneiro.play.seat import House
from oneiro.play.starts import Wandered


@pytest.fixture
def house() -> Iterator[House]:
    house = House([catch()], Limits(environments=1))
    yield house
    house.close()


def test_a_real_game_that_cannot_be_opened_gives_its_place_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OneiroError("the game does not start")

    async def play() -> None:
        player = house.enter()
        await player.welcome()
        monkeypatch.setattr(seat, "RealGame", broken)
        for _ in range(2):
            (error,) = await player.answer(Change(real=True))
            assert json.loads(error)["text"] == "the game does not start"
            assert house.games == 0
        await player.leave()

    asyncio.run(play())
    assert (house.players, house.games) == (0, 0)


def test_a_step_does_not_wait_for_all_places_that_another_player_is_shown(house: House) -> None:
    async def play() -> None:
        one, other = house.enter(), house.enter()
        for player in (one, other):
            await player.welcome()
        asked = asyncio.create_task(one.answer(Suggest()))
        await asyncio.sleep(0)
        await other.answer(Step(STAY))
        assert not asked.done()
        (answer,) = await asked
        assert len(json.loads(answer)["places"]) == seat.SUGGESTIONS

    asyncio.run(play())


def test_a_game_is_not_opened_where_others_dream(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """To begin without a replay takes a game, which may take its time."""
    threads, own = [], Wandered.rows

    def rows(*given: Any) -> Any:
        threads.append(threading.current_thread().name)
        return own(*given)

    async def play() -> None:
        player = house.enter()
        await player.welcome()
        await player.answer(Start())
        await player.answer(Suggest())

    monkeypatch.setattr(Wandered, "rows", rows)
    asyncio.run(play())
    assert len(threads) == 2 + seat.SUGGESTIONS
    assert all(name.startswith("real") for name in threads)


def test_what_is_not_installed_is_not_offered(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def welcome() -> dict[str, Any]:
        return json.loads((await house.enter().welcome())[0])

    def misses(_: ToyConfig) -> None:
        raise MissingExtra("toys", "toys")

    find = importlib.util.find_spec
    whole = asyncio.run(welcome())
    assert whole["has_real"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "av" or find(name))
    assert asyncio.run(welcome())["films"] == ["webp", "gif", "mp4"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "av" else find(name))
    monkeypatch.setattr(ToyConfig, "require", misses)
    bare = asyncio.run(welcome())
    assert not bare["has_real"]
    assert bare["films"] == ["webp", "gif"]
