"""The imagination loop, on a ladder where every number can be worked out by hand."""

import pytest
import torch

from ladder import Climb, Ladder
from oneiro import Carry, OpenLoop, dream, tree
from oneiro.dreaming import dream_score, imagine


def carry(world: Ladder, behaviour: Climb, positions: list[float]) -> Carry:
    n = len(positions)
    state = {**world.start(n), "at": torch.tensor(positions)}
    return Carry(state=state, memory=behaviour.memory(n))


def test_a_dream_is_arrival_rows() -> None:
    world, climb = Ladder(top=12.0), Climb()
    dreamed = dream(world, climb, carry(world, climb, [0.0, 10.0]), 3)
    assert dreamed.view[..., 0].tolist() == [[0, 1, 2, 3], [10, 11, 12, 13]]
    assert dreamed.action[..., 0].tolist() == [[0, 1, 1, 1]] * 2  # column 0: nothing led here
    assert dreamed.reward.tolist() == [[0, 1, 2, 3], [0, 11, 12, 13]]
    assert dreamed.cont.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert dreamed.aux["pace"].tolist() == [[1, 1, 1]] * 2
    assert dreamed.last.state["at"].tolist() == [3, 13]
    assert dreamed.last.memory["count"].tolist() == [3, 3]


def test_behaviours_that_see_images_are_shown_images() -> None:
    world, climb = Ladder(), Climb()
    climb.sees = "image"
    dreamed = dream(world, climb, carry(world, climb, [50.0]), 2)
    assert dreamed.view.shape == (1, 3, 3, 2, 2)
    torch.testing.assert_close(dreamed.view[0, :, 0, 0, 0], torch.tensor([0.50, 0.51, 0.52]))


def test_exploring_reaches_the_behaviour() -> None:
    world, climb = Ladder(), Climb()
    assert dream(world, climb, carry(world, climb, [0.0]), 2, explore=True).view[0, :, 0].tolist() == [
        0,
        2,
        4,
    ]


def test_through_keeps_the_graph_of_the_world_and_without_only_the_behaviours_own() -> None:
    world, climb = Ladder(), Climb()
    through = dream(world, climb, carry(world, climb, [0.0]), 3, through=True)
    # reward 1 + 2 + 3 rungs of `pace` each
    assert torch.autograd.grad(through.reward.sum(), climb.pace)[0] == 6
    cut = dream(world, climb, carry(world, climb, [0.0]), 3)
    assert not cut.reward.requires_grad
    assert torch.autograd.grad(cut.aux["pace"].sum(), climb.pace)[0] == 3


def test_a_plan_is_followed_and_held_at_its_end() -> None:
    world = Ladder()
    plan = OpenLoop(torch.tensor([[[1.0], [2.0]], [[-1.0], [0.0]]]))
    start = Carry(state=world.start(2), memory=plan.memory(2))
    assert dream(world, plan, start, 3).view[..., 0].tolist() == [[0, 1, 3, 5], [0, -1, -1, -1]]


def test_imagine_goes_on_from_the_carry_it_is_sent() -> None:
    world, climb = Ladder(), Climb()
    going = imagine(world, climb, carry(world, climb, [0.0, 10.0, 20.0]))
    *_, now = next(going)
    assert now.state["at"].tolist() == [1, 11, 21]
    *_, now = going.send(tree.take(now, torch.tensor([2, 0])))
    assert now.state["at"].tolist() == [22, 2]
    *_, now = next(going)
    assert now.state["at"].tolist() == [23, 3]


def test_score_counts_the_step_that_ends_and_nothing_after() -> None:
    world, climb = Ladder(top=3.0), Climb()
    with torch.no_grad():
        score, length = dream_score(world, climb, carry(world, climb, [0.0, 2.0, -9.0]), 4)
    assert length.tolist() == [3, 1, 4]  # -9 never arrives
    assert score.tolist() == [1 + 2 + 3, 3, -8 - 7 - 6 - 5]


def test_score_is_that_of_the_dream_kept_in_full() -> None:
    world, climb = Ladder(), Climb()
    start = carry(world, climb, [0.0, 4.0])
    dreamed = dream(world, climb, tree.clone(start), 5)
    score, length = dream_score(world, climb, start, 5)
    assert torch.equal(score, dreamed.reward.sum(1))
    assert length.tolist() == [5, 5]


class Maybe(Ladder):
    """Over with probability one half at every step."""

    def step(self, state: dict, action: torch.Tensor, temperature: float = 1.0):
        prediction = super().step(state, action, temperature)
        prediction.state = {**state, **prediction.state}
        prediction.cont = torch.full_like(prediction.reward, 0.5)  # type: ignore[arg-type]
        return prediction


def test_rows_with_one_draw_meet_one_fate() -> None:
    world, climb = Maybe(), Climb()
    uniform = torch.tensor([[0.1, 0.9], [0.9, 0.1], [0.9, 0.9]])  # below 0.5: goes on
    start = carry(world, climb, [0.0] * 4)
    start.state["draw"] = torch.tensor([0, 1, 1, 0])
    _, length = dream_score(world, climb, start, 3, uniform=uniform)
    assert length.tolist() == [2, 1, 1, 2]


def test_sampled_ends_are_geometric() -> None:
    world, climb = Maybe(), Climb()
    start = carry(world, climb, [0.0] * 4000)
    _, length = dream_score(world, climb, start, 40)
    assert length.float().mean() == pytest.approx(2.0, abs=0.1)


def test_score_leaves_no_graph() -> None:
    world, climb = Ladder(), Climb()
    score, _ = dream_score(world, climb, carry(world, climb, [0.0]), 2)
    assert not score.requires_grad
