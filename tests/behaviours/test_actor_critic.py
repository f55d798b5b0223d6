"""The actor-critic learns in exact worlds, so that a failing run can be blamed on the world."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from oneiro import Agent, tree
from oneiro.behaviours.actor_critic import ActorCritic, ActorCriticConfig, held, observed, starts
from oneiro.dreaming import dream_score
from oneiro.envs.toy import ToyConfig
from oneiro.spaces import ActionCodec, Spaces
from oneiro.testing.oracles import CatchOracle
from oneiro.testing.rows import played_rows
from oneiro.training.fit import Fit, Fitter, Group
from oneiro.training.guard import Guard
from oneiro.training.optim import Adam
from oneiro.types import Carry, Losses, Prediction, State, TimeStep
from oneiro.world import WorldModel

TINY = ActorCriticConfig(units=32, layers=2, bins=63, compute_dtype="float32")


def fitter(agent: Agent, folder: Path, lr: float) -> Fitter:
    groups = tuple(
        Group(address=(f"behaviour.{part}",), optimizer=Adam(lr=lr, clip_norm=100.0))
        for part in ("actor", "critic")
    )
    return Fitter(Fit(groups=groups), agent, Guard(folder))


def test_it_learns_to_catch(tmp_path):
    """Random policies score about -0.5, perfect ones 1."""
    torch.manual_seed(0)
    world = CatchOracle()
    behaviour = TINY.build(world.spaces, world.feature_dim)
    make = played_rows(ToyConfig(id="catch").env)
    first = tree.map(lambda x: x[:, 0], observed(world, make(64, 1, 99)))

    def score() -> float:
        carry = Carry(state=tree.clone(first), memory=behaviour.memory(64))
        return float(dream_score(world, behaviour, carry, 14)[0].mean())

    assert score() < 0.2
    fit = fitter(Agent(world, behaviour), tmp_path, 5e-3)
    batches = [make(4, 16, seed) for seed in range(4)]
    for k in range(60):
        losses = fit.apply(batches[k % 4])
    assert score() > 0.5
    assert losses.metrics["dream/reward"] > 0


class Point(WorldModel):
    """A point on a line; the action moves it by up to 0.3 x action, the reward is minus its squared distance to 1."""

    parts = ()

    def __init__(self) -> None:
        super().__init__()
        self.spaces, self.feature_dim = Spaces({"vector": (1,)}, ActionCodec(1, (-2.0,), (2.0,))), 1
        self.speed = nn.Parameter(torch.tensor(0.3))

    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        return Losses({})

    def start(self, n: int) -> State:
        return {"x": torch.zeros(n, 1)}

    def observe(self, state: State, row: TimeStep) -> State:
        return {"x": row.obs["vector"]}

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        following = {"x": state["x"] + self.speed * action}
        return Prediction(following, *self.judge(following))

    def judge(self, state: State) -> tuple[Tensor, Tensor]:
        reward = -(state["x"][..., 0] - 1).square()
        return reward, torch.ones_like(reward)

    def feature(self, state: State) -> Tensor:
        return state["x"]


def points(rows: int, seed: int) -> TimeStep:
    g = torch.Generator().manual_seed(seed)
    yes = torch.ones(rows, 2, dtype=torch.bool)
    return TimeStep(
        obs={"vector": 4 * torch.rand(rows, 2, 1, generator=g) - 2},
        action=torch.zeros(rows, 2, 1),
        reward=torch.zeros(rows, 2),
        is_first=yes,
        terminated=~yes,
        mask=yes,
    )


@pytest.mark.parametrize("gradient", ["reinforce", "dynamics"])
def test_it_steers_a_point(tmp_path, gradient):
    torch.manual_seed(0)
    world = Point()
    config = replace(
        TINY, gradient=gradient, horizon=5, discount_horizon=4.0, replay_weight=0.0, entropy=1e-3
    )
    behaviour = config.build(world.spaces, 1)
    fit = fitter(Agent(world, behaviour), tmp_path, 1e-2)
    for k in range(40):
        fit.apply(points(48, k))
    x = torch.tensor([[-1.0], [0.5], [1.5], [2.5]])
    action = behaviour.act(world, {"x": x}, {}).action
    assert (action * (1 - x) > 0).all(), f"it moves away from 1: {action.tolist()} at {x.tolist()}"
    assert action[0] > 1
    assert action[3] < -1
    assert world.speed.requires_grad
    assert world.speed.grad is None


def discrete(*groups: int) -> ActorCritic:
    return TINY.build(Spaces({}, ActionCodec(sum(groups), groups=groups)), 2)


class Nowhere(Point):
    """A world whose feature is its state."""

    def feature(self, state: State) -> Tensor:
        return state["f"]


def test_samples_follow_the_key_and_the_distribution():
    behaviour, n = discrete(2, 3), 4000
    behaviour.actor.outputs["logits"].bias.data = torch.tensor([1.0, 0.0, 2.0, 0.0, -1.0])
    state = {"f": torch.zeros(n, 2)}
    memory = behaviour.memory(n)
    decision = behaviour.act(Nowhere(), state, memory, explore=True)
    share = behaviour.policy(state["f"]).log_probs.exp()[0]
    torch.testing.assert_close(decision.action.mean(0), share, atol=0.03, rtol=0)
    assert (decision.action.sum(-1) == 2).all()
    again = behaviour.act(Nowhere(), state, memory, explore=True)
    assert torch.equal(again.action, decision.action)
    later = behaviour.act(Nowhere(), state, decision.memory, explore=True)
    assert not torch.equal(later.action, decision.action)
    some = behaviour.act(
        Nowhere(), tree.take(state, slice(5, 9)), tree.take(memory, slice(5, 9)), explore=True
    )
    assert torch.equal(some.action, decision.action[5:9])
    free = behaviour.act(Nowhere(), state, {}, explore=True)
    assert free.memory == {}
    torch.testing.assert_close(free.action.mean(0), share, atol=0.03, rtol=0)
    best = behaviour.act(Nowhere(), state, memory).action[0].tolist()
    assert best == [1, 0, 1, 0, 0]


def test_unimix_and_several_choices():
    behaviour = replace(TINY, unimix=0.5).build(Spaces({}, ActionCodec(4, groups=(2, 2))), 2)
    behaviour.actor.outputs["logits"].bias.data = torch.tensor([50.0, 0.0, 0.0, 0.0])
    policy = behaviour.policy(torch.zeros(1, 2))
    torch.testing.assert_close(
        policy.log_probs.exp(), torch.tensor([[0.75, 0.25, 0.5, 0.5]]), atol=0.02, rtol=0
    )
    action = torch.tensor([[1.0, 0, 0, 1]])
    expected = torch.tensor([0.75 * 0.5]).log()
    torch.testing.assert_close(policy.log_prob(action), expected, atol=0.05, rtol=0)
    halves = -(0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log()) + torch.tensor(2.0).log()
    torch.testing.assert_close(policy.entropy()[0], halves, atol=0.02, rtol=0)


def test_layer_norms_and_their_initial_weights():
    """Two hidden layers without bias, whose outputs a layer norm makes independent of the scale of the weights."""
    config = replace(TINY, norm="layer", units=256, actor_scale=1.0)
    behaviour = config.build(Spaces({}, ActionCodec(2, (-1.0, -1.0), (1.0, 1.0))), 144)
    torso, output = behaviour.actor.torso, behaviour.actor.outputs["mean"]
    assert {name for name, _ in torso.named_parameters()} == {
        f"hidden.{k}.{name}" for k in (0, 1) for name in ("weight", "norm.weight", "norm.bias")
    }
    hidden = torso.get_parameter("hidden.0.weight")
    assert hidden.std().item() == pytest.approx(200**-0.5, rel=0.03)  # the average of 144 and 256
    bound = (3 / 129) ** 0.5  # of 256 and 2
    assert 0.95 * bound < output.weight.abs().max() <= bound
    assert not behaviour.critic.out.weight.any()
    x = torch.randn(3, 144)
    before = behaviour.policy(x).mean
    with torch.no_grad():
        hidden *= 100
    torch.testing.assert_close(behaviour.policy(x).mean, before, atol=0.05, rtol=0)


def test_a_box_is_scaled_and_cut_and_the_sample_is_kept():
    behaviour = TINY.build(Spaces({}, ActionCodec(2, (-1.0, 0.0), (1.0, 10.0))), 2)
    torch.manual_seed(0)
    decision = behaviour.act(Nowhere(), {"f": torch.zeros(500, 2)}, behaviour.memory(500), explore=True)
    raw, action = decision.aux["raw"], decision.action
    assert (raw.abs() > 1).any()
    assert action.min(0).values.tolist() == [-1, 0]
    assert action.max(0).values.tolist() == [1, 10]
    inner = (raw.abs() < 1).all(-1)
    torch.testing.assert_close(
        action[inner], raw[inner] * torch.tensor([1.0, 5.0]) + torch.tensor([0.0, 5.0])
    )


def test_the_slow_critic_follows_the_fast_one():
    behaviour = discrete(3)
    behaviour.critic.out.bias.data.fill_(1.0)
    behaviour.after_update()
    behaviour.after_update()
    torch.testing.assert_close(behaviour.slow.out.bias, torch.full((63,), 1 - 0.98**2))
    assert not any(p.requires_grad for p in behaviour.slow.parameters())


def test_starts_are_copies_with_noise_of_their_own():
    trace = {
        "h": torch.randn(2, 3, 4, requires_grad=True) * 1,
        "draw": torch.tensor([0, 1])[:, None].expand(2, 3),
    }
    start = starts(trace)
    assert start["h"].shape == (6, 4)
    assert not start["h"].requires_grad
    start["h"].zero_()
    assert trace["h"].abs().min() > 0
    assert start["draw"].tolist() == list(range(6))


def test_padding_does_not_count():
    torch.manual_seed(0)
    world = Point()
    # even bins: a random critic over symexp bins is a difference of numbers near 1e8, which no tolerance fits
    behaviour = replace(TINY, replay_weight=1.0, bin_space="symlog").build(world.spaces, 1).eval()
    nn.init.normal_(behaviour.critic.out.weight)
    padded, plain = points(3, 0), points(2, 0)
    mask = torch.tensor([[True, True], [True, True], [False, False]])
    padded = replace(
        padded, mask=mask, obs={"vector": torch.cat([plain.obs["vector"], torch.full((1, 2, 1), 50.0)])}
    )
    found = []
    for batch in (plain, padded):
        world_state = {"x": batch.obs["vector"]}
        behaviour._noise = lambda memory, n: torch.zeros(n, 1)  # the same samples in both
        found.append(behaviour.losses(world, batch, world_state, ("actor", "critic")).by_part)
    for part in ("actor", "critic"):
        torch.testing.assert_close(found[0][part], found[1][part])


class Doomed(Point):
    """Goes on with probability 0.6, and says so."""

    def judge(self, state: State) -> tuple[Tensor, Tensor]:
        reward, one = super().judge(state)
        return reward, 0.6 * one


@pytest.mark.parametrize(
    ("start_cont", "cont", "expected"),
    [
        ("predicted", "mean", [[0.6, 0.6, 0.6]] * 2),
        ("recorded", "mean", [[1.0, 0.6, 0.6], [0.0, 0.6, 0.6]]),
        ("predicted", "mode", [[1.0, 1.0, 1.0]] * 2),
        ("recorded", "mode", [[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]),
    ],
)
def test_who_says_that_a_row_goes_on(start_cont, cont, expected):
    world, batch = Doomed(), points(1, 0)
    batch = replace(batch, terminated=torch.tensor([[False, True]]))
    behaviour = replace(TINY, horizon=2, start_cont=start_cont, cont=cont).build(world.spaces, 1)
    dreamed = behaviour._dream(world, {"x": batch.obs["vector"]}, batch)
    torch.testing.assert_close(dreamed.cont, torch.tensor(expected))


def test_the_scale_moves_in_train_mode_only():
    torch.manual_seed(0)
    world, batch = Point(), points(4, 0)
    behaviour = TINY.build(world.spaces, 1)
    for train in (False, True):
        before = behaviour.scale.low.clone()
        behaviour.train(train).losses(world, batch, {"x": batch.obs["vector"]}, ("actor", "critic"))
        assert torch.equal(behaviour.scale.low, before) != train


def test_held_lets_gradients_through():
    layer, x = nn.Linear(1, 1), torch.ones(1, 1, requires_grad=True)
    with held(layer):
        y = layer(x).sum()
    assert layer.weight.requires_grad
    assert torch.autograd.grad(y, [x, layer.weight], allow_unused=True)[1] is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"horizon": 0}, "horizon"),
        ({"discount_horizon": 1.0}, "discount_horizon"),
        ({"unimix": 1.0}, "unimix"),
        ({"min_std": 2.0}, "min_std"),
        ({"slow_rate": 0.0}, "slow_rate"),
        ({"gradient": "both"}, "gradient = 'both'"),
        ({"norm": "batch"}, "norm = 'batch'"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        ActorCriticConfig(**fields)


def test_choices_have_no_gradient_through_the_world():
    with pytest.raises(ValueError, match="Box"):
        ActorCriticConfig(gradient="dynamics").build(Spaces({}, ActionCodec(3)), 2)
