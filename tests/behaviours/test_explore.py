import json
from pathlib import Path

import pytest
import torch

from oneiro import tree
from oneiro.agent import Agent
from oneiro.behaviours.explore import HeldRandom, RandomLinear
from oneiro.behaviours.linear import squash_car
from oneiro.spaces import ActionCodec, Spaces
from oneiro.testing import CatchOracle, check_behaviour, require

VECTORS = Path(__file__).parents[1] / "vectors" / "worldmodels.json"
SCALAR = Spaces({}, ActionCodec(1, (-1.0,), (1.0,)))
CAR = Spaces({}, ActionCodec(3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
THREE = Spaces({}, ActionCodec(3))


def actions(policy, steps, rows=500):
    """[rows, steps, A] of as many episodes, keys 0, 1, 2, ..."""
    agent = Agent(None, policy)
    carry, taken = agent.start(rows), []
    for _ in range(steps):
        action, carry = agent.act(carry)
        taken.append(action)
    return torch.stack(taken, 1)


def durations(taken):
    """Lengths of the stretches of one action in [steps, A], the last one (cut) left out."""
    change = (taken[1:] != taken[:-1]).any(-1).nonzero()[:, 0] + 1
    return torch.diff(torch.cat([torch.zeros(1, dtype=torch.long), change]))


def test_every_step_draws_anew_without_a_hold():
    taken = actions(HeldRandom(hold=(1,)).build(SCALAR), 50)
    assert taken.min() >= -1
    assert taken.max() < 1
    assert abs(taken.mean()) < 0.02
    assert abs(taken.var() - 1 / 3) < 0.01
    assert (taken[:, 1:] != taken[:, :-1]).float().mean() > 0.999
    thirds = torch.histc(taken, 3, -1, 1) / taken.numel()
    assert torch.allclose(thirds, torch.full((3,), 1 / 3), atol=0.01)


def test_actions_are_held_for_1_to_k_steps():
    taken = actions(HeldRandom(hold=(10,)).build(SCALAR), 300, rows=60)
    lengths = torch.cat([durations(row) for row in taken])
    assert lengths.min() == 1
    assert lengths.max() == 10
    share = torch.bincount(lengths, minlength=11)[1:] / len(lengths)
    assert torch.allclose(share, torch.full((10,), 0.1), atol=0.03)


def test_each_episode_has_one_of_the_holds():
    taken = actions(HeldRandom(hold=(1, 40), weight=(2.0, 1.0)).build(SCALAR), 100, rows=600)
    moves = (taken[:, 1:] != taken[:, :-1]).any(-1).float().mean(1)
    is_quick = moves > 0.99
    assert (is_quick | (moves < 0.3)).all()
    assert abs(is_quick.float().mean() - 2 / 3) < 0.06


def test_choices_are_one_hot():
    taken = actions(HeldRandom(hold=(1,)).build(THREE), 40)
    assert (taken.sum(-1) == 1).all()
    assert torch.allclose(taken.mean((0, 1)), torch.full((3,), 1 / 3), atol=0.01)


def test_boxes_are_filled_to_their_bounds():
    taken = actions(HeldRandom(hold=(1,)).build(CAR), 100)
    low, high = taken.amin((0, 1)), taken.amax((0, 1))
    assert torch.allclose(low, torch.tensor([-1.0, 0.0, 0.0]), atol=0.01)
    assert torch.allclose(high, torch.ones(3), atol=0.01)


@pytest.mark.parametrize("policy", [HeldRandom(hold=(3, 9)), RandomLinear()])
def test_an_episode_is_a_function_of_its_key(policy):
    behaviour = policy.build(CAR)
    whole = actions(behaviour, 20, rows=5)
    memory = behaviour.memory(2)
    memory["key"] = torch.tensor([4, 1])
    for t in range(20):
        if t == 7:  # another row joins and leaves
            memory = tree.take(tree.concat([memory, behaviour.memory(1)]), slice(0, 2))
        decision = behaviour.act(None, {}, memory)
        assert torch.equal(decision.action, whole[[4, 1], t])
        memory = decision.memory


def test_random_drivers():
    behaviour = RandomLinear().build(CAR)
    bias, weight = behaviour.weights(torch.arange(3000))
    assert bias.shape == (3000, 3)
    assert weight.shape == (3000, 32, 3)
    flat = torch.cat([bias[:, None], weight], 1).flatten(1)
    size = flat.abs().median(1).values  # the median of |Cauchy(0, s)| is s
    assert abs(size.mean() - 0.005) < 2e-4  # s ~ U(0, 0.01)
    assert size.max() < 0.016
    assert abs((flat < 0).float().mean() - 0.5) < 0.01
    assert (flat.abs() > 0.1).any()  # heavy tails
    taken = actions(behaviour, 30)
    assert abs(taken[..., 0].mean()) < 0.02
    assert abs(taken[..., 1].median() - 0.5) < 0.01
    assert taken[..., 2].median() < 0.05
    assert (taken[..., 1:] >= 0).all()


def test_squash_of_the_released_code():
    vector = json.loads(VECTORS.read_text())["car_action"]
    raw = torch.tensor(vector["raw_linear_output"])
    assert torch.allclose(squash_car(raw), torch.tensor(vector["action"]), atol=1e-5)


def test_tanh_drivers_fit_any_box():
    spaces = Spaces({}, ActionCodec(2, (0.0, -5.0), (10.0, 5.0)))
    taken = actions(RandomLinear(squash="tanh", scale=1.0).build(spaces), 50)
    assert taken[..., 0].min() >= 0
    assert taken[..., 0].max() > 8
    assert taken[..., 1].min() < -3


@pytest.mark.parametrize("policy", [HeldRandom(hold=(1,)), HeldRandom(hold=(2, 5), weight=(1.0, 3.0))])
def test_conformance(policy):
    world = CatchOracle()
    require(check_behaviour(policy.build(world.spaces), world))


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (HeldRandom, {"hold": ()}),
        (HeldRandom, {"hold": (0,)}),
        (HeldRandom, {"hold": (1, 2), "weight": (1.0,)}),
        (HeldRandom, {"hold": (1,), "weight": (-1.0,)}),
        (RandomLinear, {"scale": 0.0}),
    ],
)
def test_bad_fields_are_named(config, values):
    with pytest.raises(ValueError, match=list(values)[-1]):
        config(**values)


def test_drivers_need_numbers():
    with pytest.raises(ValueError, match="HeldRandom"):
        RandomLinear().build(THREE)
