"""A person in a dream: start, step, rewind, branch, two dreams at once, and what is refused. Exact worlds."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from playing import LEFT, RIGHT, STAY, Blind, Fast, Gambler, Still, catch, dodge, play, player, session

from oneiro.envs.toy import GRID, ToyConfig
from oneiro.errors import OneiroError
from oneiro.play.history import History
from oneiro.play.real import RealGame, Shown
from oneiro.play.session import Session
from oneiro.play.starts import Place
from oneiro.testing import CatchOracle, DodgeOracle
from oneiro.types import TimeStep

PLACE = Place(episode=3, row=2)


def test_a_dream_begins_in_the_real_frame() -> None:
    current = session()
    frame = current.start(PLACE)
    assert frame.number == 0
    real = current.runs[0].begin(current.runs[0].rows(PLACE))[1]
    assert real is not None
    assert np.array_equal(frame.lanes[0].picture, real)
    assert len({session().start().lanes[0].picture.tobytes() for _ in range(3)}) == 1, "same seed, same start"


def test_a_dream_that_cannot_begin_leaves_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OneiroError("no such row")

    current = session()
    frame = current.start(PLACE)
    monkeypatch.setattr(current.runs[0], "begin", broken)
    with pytest.raises(OneiroError, match="no such row"):
        current.start(Place(episode=9, row=9))
    assert (current.place, current.frame) == (PLACE, frame)


def test_the_person_leads() -> None:
    current = session()
    current.start(PLACE)
    at = player(current)
    assert play(current, [LEFT, LEFT, RIGHT, STAY]) == [at - 1, at - 2, at - 1, at - 1]
    assert current.frame.action == STAY
    assert not current.frame.by_agent


def test_the_agent_leads_and_its_memory_goes_on_either_way() -> None:
    current = session()
    current.start(PLACE)
    looks = int(current.frame.lanes[0].carry.memory["looks"])
    current.step(STAY)
    current.change(agent=True)
    for _ in range(20):
        if current.frame.lanes[0].ended:
            break
        current.step()
    lane = current.frame.lanes[0]
    assert lane.reward == 1.0, "the agent catches every ball it can reach"
    assert current.frame.by_agent
    assert int(lane.carry.memory["looks"]) == looks + current.frame.number
    assert lane.value == 1.0


def test_rewinding_and_branching() -> None:
    current = session(dodge())
    current.start(PLACE)
    for _ in range(6):
        current.step((0.0,))
    before = [current.history[t].lanes[0].picture for t in range(7)]
    current.rewind(2)
    for t in range(3, 7):
        current.step((0.0,))
        assert np.array_equal(current.frame.lanes[0].picture, before[t]), (
            "same actions, same luck, same dream"
        )
    current.rewind(2)
    current.step((1.0,))
    assert current.history.last == 3, "what came after the branch is let go"
    assert not np.array_equal(current.frame.lanes[0].picture, before[3])
    assert np.array_equal(current.history[2].lanes[0].picture, before[2])
    with pytest.raises(OneiroError, match="frame 5 is not kept"):
        current.rewind(5)


def test_new_luck_only_where_a_dream_branches() -> None:
    def futures(new_luck: bool) -> set[bytes]:
        current = session(dodge())
        current.start(PLACE)
        current.change(new_luck=new_luck, past_ends=True)
        found = set()
        for _ in range(6):
            for _t in range(12):
                current.step((0.0,))
            found.add(b"".join(current.history[t].lanes[0].picture.tobytes() for t in range(12)))
            current.rewind(0)
        return found

    assert len(futures(False)) == 1
    assert len(futures(True)) > 1


def test_the_agent_has_luck_of_its_own_in_each_dream_and_with_new_luck() -> None:
    current = session(dodge(behaviour=Gambler()))
    current.change(agent=True, explore=True, past_ends=True)

    def actions() -> list[tuple[float, ...] | None]:
        return [current.step().action for _ in range(4)]

    current.start(PLACE)
    first = actions()
    current.rewind(0)
    assert actions() == first
    current.change(new_luck=True)
    current.rewind(0)
    others = [actions()]
    current.start(PLACE)
    others.append(actions())
    assert first not in others
    assert others[0] != others[1]


def test_a_look_at_the_feature_or_the_real_game_lets_nothing_go() -> None:
    current = session(dodge())
    current.start(PLACE)
    for _ in range(6):
        current.step((0.0,))
    after = current.history[3]
    current.rewind(2)
    current.change(view="feature")
    frame = current.attach_real(
        Shown(picture=np.zeros((4, 4, 3), np.uint8), reward=0, score=0, steps=0, over=False)
    )
    history = current.history
    assert (current.frame, history.last, history[3]) == (frame, 6, after)
    assert history.nbytes == sum(history[t].nbytes for t in range(7))


def test_a_larger_frame_in_the_place_of_another_keeps_the_bound() -> None:
    current = session(dodge())
    frames = [current.start(PLACE), *(current.step((0.0,)) for _ in range(3))]
    shown = Shown(picture=np.zeros((64, 64, 3), np.uint8), reward=0, score=0, steps=0, over=False)
    more, oldest = shown.picture.nbytes, frames[0].nbytes
    for spare, kept in ((more, (0, 3)), (more - 1, (1, 3)), (more - oldest - 1, (1, 2))):
        history = History(sum(frame.nbytes for frame in frames) + spare)
        for frame in frames:
            history.append(frame)
        history.replace(replace(frames[1], real=shown))
        assert (history.first, history.last) == kept
        assert history.nbytes == sum(history[t].nbytes for t in range(history.first, history.last + 1))


def test_dreams_leave_torchs_random_numbers_alone() -> None:
    current = session(dodge())
    current.start(PLACE)
    before = torch.get_rng_state()
    current.step((0.0,))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_end_stops_the_dream_unless_it_may_go_on() -> None:
    current = session()
    current.start(PLACE)
    while not current.frame.lanes[0].ended:
        current.step(STAY)
    assert current.frame.lanes[0].cont == 0.0
    last = current.frame.number
    with pytest.raises(OneiroError, match="has ended"):
        current.step(STAY)
    current.change(past_ends=True)
    assert current.step(STAY).number == last + 1


def test_the_horizon() -> None:
    current = session()
    current.start(PLACE)
    current.change(horizon=2)
    current.step(STAY)
    current.step(STAY)
    with pytest.raises(OneiroError, match="horizon of 2"):
        current.step(STAY)
    for wrong in (0, 10**9):
        with pytest.raises(ValueError, match="horizon"):
            current.change(horizon=wrong)


def test_two_dreams_are_led_by_the_same_actions() -> None:
    current = session(catch(name="a"), catch(Blind(), name="b"))
    current.start(PLACE)
    assert player(current, 0) == player(current, 1), "both begin after the same rows"
    play(current, [LEFT, LEFT])
    first, second = current.frame.lanes
    assert player(current, 0) == player(current, 1)
    assert not np.array_equal(first.picture, second.picture), "the second is shown by its feature"
    with pytest.raises(OneiroError, match="different actions"):
        Session([catch(), dodge()])


def test_one_dream_does_not_move_the_dice_of_the_other() -> None:
    alone, both = session(dodge()), session(dodge(), dodge(name="other"))
    for current in (alone, both):
        current.start(PLACE)
        current.change(past_ends=True)
        for _ in range(12):
            current.step((0.0,))
    for t in range(13):
        pictures = [current.history[t].lanes[0].picture for current in (alone, both)]
        assert np.array_equal(*pictures)
    first, second = (
        b"".join(both.history[t].lanes[i].picture.tobytes() for t in range(13)) for i in range(2)
    )
    assert first != second, "each has its own luck"


def test_a_world_that_cannot_draw_shows_its_feature() -> None:
    run = catch(Blind())
    assert not run.draws
    current = session(run)
    current.start(PLACE)
    assert current.frame.lanes[0].picture.shape == (8, 8, 3), "four numbers, a square each"
    sighted = session()
    sighted.start(PLACE)
    sighted.change(view="feature")
    assert np.array_equal(sighted.frame.lanes[0].picture, current.frame.lanes[0].picture)


def test_knobs_and_temperature() -> None:
    current = session(dodge(Fast()))
    current.start(PLACE)
    at = player(current)
    current.change(knobs={"moves": 3})
    assert play(current, [(1.0,)]) == [min(at + 3, GRID - 1)]
    current.change(knobs={})
    assert play(current, [(-1.0,)]) == [min(at + 3, GRID - 1) - 1]
    with pytest.raises(OneiroError, match="no knob 'speed'"):
        current.change(knobs={"speed": 1})
    with pytest.raises(ValueError, match="whole number in 1 to 3"):
        current.change(knobs={"moves": 1.5})
    with pytest.raises(ValueError, match="temperature"):
        current.change(temperature=-0.1)
    assert current.settings.knobs == {}


@pytest.mark.parametrize("wrong", [(3.0,), (0.5,), (-1.0,), (0.0, 0.0)])
def test_actions_that_are_none_are_refused(wrong: tuple[float, ...]) -> None:
    current = session()
    current.start(PLACE)
    with pytest.raises(ValueError, match=r"whole numbers|not in|shape"):
        current.step(wrong)
    with pytest.raises(OneiroError, match="no action"):
        current.step()
    assert current.frame.number == 0


def test_boxes_are_clipped_like_on_the_way_to_the_game() -> None:
    current = session(dodge())
    current.start(PLACE)
    current.step((7.0,))
    assert current.frame.action == (1.0,)


def test_memory_is_bounded() -> None:
    current = session(dodge(), history_mib=1)
    current.start(PLACE)
    current.change(past_ends=True)
    for _ in range(120):
        current.step((0.0,))
    history = current.history
    assert history.last == 120
    assert 20 < len(history) < 80, "each keeps 12 kB of picture and 5 kB of dice"
    assert history.nbytes <= 1 << 20
    assert history.nbytes == sum(history[t].nbytes for t in range(history.first, history.last + 1))
    with pytest.raises(OneiroError, match="not kept"):
        current.rewind(0)


def test_the_newest_frame_is_kept_however_large() -> None:
    current = session()
    frame = current.start(PLACE)
    history = History(1)
    history.append(frame)
    assert len(history) == 1


def test_places_of_the_game_and_out_of_range() -> None:
    current = session()
    found = [current.suggestion(current.find()) for _ in range(3)]
    assert len({place for place, _ in found}) == 3
    run = session().runs[0]
    again = run.begin(run.rows(found[0][0]))[1]
    assert np.array_equal(found[0][1], again), "a place is the same frame again"


def test_the_real_game_takes_the_same_actions_as_an_exact_dream() -> None:
    run = catch()
    real = RealGame(ToyConfig(id="catch"), run.spaces, seed=5)
    try:
        shown = real.begin()
        world, state = CatchOracle(), None
        image = torch.from_numpy(shown.picture.transpose(2, 0, 1).copy())[None]
        row = TimeStep(
            obs={"image": image},
            action=torch.zeros(1, 3),
            reward=torch.zeros(1),
            is_first=torch.ones(1, dtype=torch.bool),
            terminated=torch.zeros(1, dtype=torch.bool),
            mask=torch.ones(1, dtype=torch.bool),
        )
        state = world.observe(world.start(1), row)
        for told in (LEFT, RIGHT, RIGHT, STAY):
            shown = real.step(told)
            state = world.step(state, run.action(told)).state
            assert np.array_equal(run.picture(state, "image"), shown.picture)
        while not shown.over:
            shown = real.step(STAY)
        assert abs(shown.score) == 1.0
        assert real.step(STAY).steps == 0, "after the end the next episode begins"
    finally:
        real.close()


def test_agent_and_world_throw_other_dice() -> None:
    """Both draw at random for the same frame; what one draws says nothing about what the other does."""
    drawn: list[float] = []

    class Lucky(Still):
        def act(self, *given: Any, **options: Any) -> Any:
            drawn.append(float(torch.rand(())))
            return super().act(*given, **options)

    class Windy(DodgeOracle):
        def step(self, *given: Any) -> Any:
            drawn.append(float(torch.rand(())))
            return super().step(*given)

    current = session(dodge(Windy(), behaviour=Lucky()))
    current.change(agent=True, explore=True)
    current.start(PLACE)
    current.step()
    assert drawn[0] != drawn[1]
    current.rewind(0)
    current.step()
    assert drawn[2:] == drawn[:2]
