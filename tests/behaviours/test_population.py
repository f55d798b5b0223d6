"""A population acts row by row like its members."""

import pytest
import torch
from torch.nn.utils import vector_to_parameters

from oneiro import tree
from oneiro.behaviours.linear import LinearConfig
from oneiro.behaviours.population import Population
from oneiro.dreaming import dream, dream_score
from oneiro.spaces import ActionCodec, Spaces
from oneiro.types import Carry
from oneiro.worlds.vmc import VMC, VMCConfig

SPACES = Spaces({"image": (3, 64, 64)}, ActionCodec(1, (-1.0,), (1.0,)))


@pytest.fixture(scope="module")
def world() -> VMC:
    torch.manual_seed(0)
    config = VMCConfig(z_dim=4, channels=(2, 2, 2, 2), hidden_dim=8, ending="sample", compute_dtype="float32")
    return config.build(SPACES).eval()


@pytest.mark.parametrize("config", [LinearConfig(), LinearConfig(has_bias=True), LinearConfig(hidden_dim=3)])
def test_rows_act_like_their_member(world: VMC, config: LinearConfig):
    member = config.build(SPACES, world.feature_dim)
    population = Population(member)
    weights = torch.randn(5, population.num_weights)
    state = world.start(5)
    state["z"], state["h"] = torch.randn(5, 4), torch.randn(5, 8)
    action = population.act(world, state, population.seat(weights)).action
    for i in range(5):
        vector_to_parameters(weights[i], member.parameters())
        alone = member.act(world, tree.take(state, slice(i, i + 1)), {}).action
        assert torch.allclose(action[i : i + 1], alone, atol=1e-6)


def test_rows_can_be_dropped_from_a_dream(world: VMC):
    population = Population(LinearConfig().build(SPACES, world.feature_dim))
    memory = population.seat(torch.randn(6, population.num_weights))
    torch.manual_seed(1)
    whole = dream(world, population, Carry(state=world.start(6), memory=memory), 5)
    assert whole.action.shape == (6, 6, 1)
    assert whole.action[:, 1:].abs().max() <= 1


def test_rows_of_one_draw_and_weights_have_one_fate(world: VMC):
    population = Population(LinearConfig().build(SPACES, world.feature_dim))
    weights = torch.randn(1, population.num_weights).expand(8, -1)
    state = world.start(8)
    state["draw"] = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    torch.manual_seed(2)
    score, length = dream_score(world, population, Carry(state=state, memory=population.seat(weights)), 200)
    assert torch.equal(score[:4], score[4:])
    assert torch.equal(length[:4], length[4:])
    assert len(set(length[:4].tolist())) > 1  # different draws, different fates
