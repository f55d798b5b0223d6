"""Seats in one house, without a server: what players share is given back, and nobody waits for long."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from playing import STAY, catch

from oneiro.errors import OneiroError
from oneiro.play import seat
from oneiro.play.limits import Limits
from oneiro.play.messages import Change, Step, Suggest
from oneiro.play.seat import House


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
