"""Agents fold in real rows: masks, restarts and blind behaviours."""

import pytest
import torch

from ladder import Climb, Ladder, rows
from oneiro import Agent, Carry


def agent() -> Agent:
    return Agent(Ladder(), Climb()).eval()


def acted(carry: Carry, times: int = 2) -> Carry:
    for _ in range(times):
        _, carry = agent().act(carry)
    return carry


def test_it_observes_and_acts_row_by_row() -> None:
    a = agent()
    carry = a.observe(a.start(2), rows([[3.0], [7.0]], [[True], [True]]).at(0))
    assert carry.state["at"].tolist() == [3, 7]
    action, carry = a.act(carry)
    assert action.tolist() == [[1], [1]]
    assert not action.requires_grad
    assert carry.state["at"].tolist() == [3, 7]  # acting does not step the world
    assert carry.memory["count"].tolist() == [1, 1]


def test_a_first_row_restarts_state_and_memory_of_that_row() -> None:
    a = agent()
    carry = acted(a.observe(a.start(2), rows([[3.0], [7.0]], [[True], [True]]).at(0)))
    carry = a.observe(carry, rows([[4.0], [0.0]], [[False], [True]]).at(0))
    assert carry.state["seen"].tolist() == [2, 1]
    assert carry.memory["count"].tolist() == [2, 0]


def test_masked_rows_stay_as_they_were() -> None:
    a = agent()
    carry = acted(a.observe(a.start(2), rows([[3.0], [7.0]], [[True], [True]]).at(0)))
    padded = rows([[9.0], [9.0]], [[True], [False]], [[False], [True]]).at(0)
    carry = a.observe(carry, padded)
    assert carry.state["at"].tolist() == [3, 9]
    assert carry.state["seen"].tolist() == [1, 2]
    assert carry.memory["count"].tolist() == [2, 2]  # a masked is_first row does not restart the memory


def test_a_blind_behaviour_needs_no_world() -> None:
    climb = Climb()
    climb.sees = "nothing"
    a = Agent(None, climb).eval()
    carry = a.observe(a.start(2), rows([[3.0], [4.0]], [[True], [True]]).at(0))
    assert carry.state == {}
    assert carry.memory["count"].tolist() == [0, 0]


def test_a_behaviour_that_sees_needs_a_world() -> None:
    with pytest.raises(AssertionError, match="Climb needs a world"):
        Agent(None, Climb())


def test_settle_sees_the_first_rows_only() -> None:
    a = agent()
    batch = rows([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[True, False, False], [True, False, True]])
    carry = a.settle(batch, 2)
    assert carry.state["at"].tolist() == [2, 5]
    assert carry.state["seen"].tolist() == [2, 2]
    assert carry.memory["count"].tolist() == [0, 0]
    assert a.settle(batch, 3).state["seen"].tolist() == [3, 1]


def test_settle_skips_padding() -> None:
    a = agent()
    batch = rows([[9.0, 2.0], [4.0, 9.0]], [[False, True], [True, False]], [[False, True], [True, False]])
    carry = a.settle(batch, 2)
    assert carry.state["at"].tolist() == [2, 4]
    assert carry.state["seen"].tolist() == [1, 1]
    assert torch.is_inference_mode_enabled() is False


class Spectator(Climb):
    """Counts what it watches."""

    def watch(self, world: object, state: dict, memory: dict) -> dict:
        return {**memory, "count": memory["count"] + state["at"].long()}


def test_settle_burns_in_a_behaviour_that_watches() -> None:
    a = Agent(Ladder(), Spectator()).eval()
    # The second row of the second episode restarts; the third episode is padded on its left.
    firsts = [[True, False, False], [False, True, False], [False, True, False]]
    masks = [[True, True, True], [True, True, True], [False, True, True]]
    batch = rows([[3.0, 4.0, 5.0], [7.0, 1.0, 2.0], [9.0, 6.0, 8.0]], firsts, masks)
    carry = a.settle(batch, 3)
    assert carry.memory["count"].tolist() == [3 + 4, 1, 6]  # all but the last row, from the last restart on
    plain = Agent(Ladder(), Climb()).eval().settle(batch, 3)
    assert carry.state["at"].tolist() == plain.state["at"].tolist() == [5, 2, 8]
    assert carry.state["seen"].tolist() == plain.state["seen"].tolist()
    assert plain.memory["count"].tolist() == [0, 0, 0]
