"""DreamerV3's two-hot scalars, returns, losses, heads and optimizer against vectors of the official code."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from oneiro.agent import Agent
from oneiro.behaviours.actor_critic import ActorCritic, ActorCriticConfig
from oneiro.nets.layers import MLP
from oneiro.nets.policies import Actor, OneHots
from oneiro.nets.twohot import TwoHot, symexp, symlog
from oneiro.returns import PercentileScale, alive_weight, lambda_return
from oneiro.spaces import ActionCodec, Spaces
from oneiro.training.fit import parameter_counts
from oneiro.training.laprop import LaProp
from oneiro.types import Carry, Dream, TimeStep
from oneiro.worlds.dreamerv3 import DreamerV3Config

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dreamerv3_behaviour.json").read_text())
TOLERANCE = 2e-6  # relative: the vectors hold 7 digits of float32


def close(a: Tensor, b: object, rtol: float = TOLERANCE, atol: float = 2e-6) -> None:
    torch.testing.assert_close(a.detach(), torch.as_tensor(b, dtype=a.dtype), rtol=rtol, atol=atol)


def test_symlog():
    vector = VECTORS["symlog"]
    x = torch.tensor(vector["x"])
    close(symlog(x), vector["symlog"])
    close(symexp(x / 100), vector["symexp_of_x_div_100"])


def test_twohot():
    vector, head = VECTORS["twohot_symexp"], TwoHot(255)
    i = torch.arange(255.0)
    logits = torch.stack([2 * torch.sin(0.1 * i), 0 * i, -2e-4 * (i - 127) ** 2])
    for name, part in (("first3", slice(3)), ("124_130", slice(124, 131)), ("last3", slice(-3, None))):
        close(head.bins[part], vector[f"bins_{name}"])
    close(head.mean(logits[:2]), vector["pred"][:2], 1e-5)
    assert head.mean(logits)[2] == 0  # symmetric
    target = torch.tensor(vector["targets"])
    close(head.loss(logits[:, None].expand(3, 11, 255), target.expand(3, 11)), vector["loss"])


def wave(n: int, step: float, shift: float, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    return (scale * torch.sin(step * torch.arange(1.0, n + 1) + shift)).reshape(shape)


def test_lambda_return():
    vector = VECTORS["lambda_return"]
    found = lambda_return(
        torch.tensor(vector["rew"]),
        1 - torch.tensor(vector["term"]).float(),
        torch.tensor(vector["boot"]),
        discount=1 - 1 / 333,
        lam=0.95,
        is_last=torch.tensor(vector["last"]),
    )
    close(found, vector["out"])


def test_percentile_scale():
    scale = PercentileScale()
    for k, row in enumerate(VECTORS["perc_normalize"]["rows"]):
        scale.update(wave(20, 0.9, 0.1 * k, (20,), 100.0 * (k + 1)))
        close(
            torch.stack([scale.low, scale.high, scale.low, scale()]), row
        )  # the offset is the low percentile


def test_laprop_with_clipping_and_warm_up():
    a, b = nn.Parameter(wave(6, 1, 0, (2, 3), 0.5)), nn.Parameter(torch.zeros(3))
    config = LaProp(lr=0.1, warmup=2)
    optimizer = config.build([a, b])
    for k, expected in enumerate(VECTORS["laprop_agc"]["params"]):
        a.grad, b.grad = wave(6, 0.7, 0.3 * k, (2, 3), 2 / (k + 1)), wave(3, 1.1, 0.2 * k, (3,), 0.01)
        config.set_rate(optimizer, k)
        optimizer.step()
        # The code corrects its bias with 1 - 0.999^t in float32, which is off by up to 6e-5.
        close(a, expected["a"], atol=3e-6)
        close(b, expected["b"], atol=3e-6)


class Table(nn.Module):
    """Stands for a network: the feature is the number of the row."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)

    def forward(self, feature: Tensor) -> Tensor:
        return self.rows[feature[..., 0].long()]


class ChoiceTable(Table):
    def forward(self, feature: Tensor) -> OneHots:
        return OneHots.of(super().forward(feature), (3,))


FEATURE = torch.arange(8.0).reshape(2, 4, 1)


def tabled(**fields: float) -> ActorCritic:
    """An actor-critic whose networks are the tables of the vectors."""
    behaviour = ActorCriticConfig(units=1, layers=1, horizon=3, **fields).build(Spaces({}, ActionCodec(3)), 1)
    i, m = torch.arange(255.0), torch.arange(1.0, 9)[:, None]
    peak = i - 127
    behaviour.actor = ChoiceTable(wave(24, 0.8, 0.5, (8, 3)))
    behaviour.critic = Table(-(((peak - 10 * torch.sin(0.9 * m)) / 12) ** 2))
    behaviour.slow = Table(-(((peak - 10 * torch.sin(0.9 * m + 0.5)) / 12) ** 2))
    return behaviour


def test_losses_of_a_dream():
    vector = VECTORS["imag_loss"]
    action = nn.functional.one_hot(torch.tensor(vector["actions"]), 3).float()
    dreamed = Dream(
        view=FEATURE,
        action=torch.zeros(2, 4, 3),
        reward=wave(8, 1.3, 0.2, (2, 4)),
        cont=0.9 + wave(8, 1.0, -1.0, (2, 4), 0.09),  # the discount is in it
        aux={"raw": action[:, :-1]},
        last=Carry(state={}),
    )
    behaviour = tabled(discount_horizon=math.inf)
    close(behaviour.twohot.mean(behaviour.critic(FEATURE)), vector["value_pred"], 1e-5)
    close(behaviour.twohot.mean(behaviour.slow(FEATURE)), vector["slow_pred"], 1e-5)
    one = torch.ones(2)
    by_part, _, returns = behaviour.dream_losses(dreamed, one, ("actor", "critic"))
    close(returns, vector["ret"], 1e-5)
    close(behaviour.scale.low, vector["retnorm_lo"], 1e-5)
    close(behaviour.scale.high, vector["retnorm_hi"], 1e-5)
    close(by_part["actor"], torch.tensor(vector["policy_loss"]).mean(), 1e-5)
    close(by_part["critic"], torch.tensor(vector["value_loss"]).mean(), 1e-5)
    weight, acted = alive_weight(dreamed.cont, discount=1.0)[:, :-1], FEATURE[:, :-1]
    critic = behaviour._value_loss(behaviour.critic(acted).log_softmax(-1), returns, acted)
    close(weight * critic, vector["value_loss"], 1e-5)
    policy, value = behaviour.policy(acted), torch.tensor(vector["value_pred"])[:, :-1]
    gain = (returns - value) / behaviour.scale() * policy.log_prob(action[:, :-1])
    close(-weight * (gain + 3e-4 * policy.entropy()), vector["policy_loss"], 1e-5)
    for row in range(2):  # each row by itself: nothing cancels
        behaviour = tabled(discount_horizon=math.inf)
        behaviour.scale.rate = 1e-9
        by_part, _, _ = behaviour.dream_losses(dreamed, torch.arange(2) == row, ("actor", "critic"))
        close(by_part["actor"], torch.tensor(vector["policy_loss"][row]).mean(), 1e-5)
        close(by_part["critic"], torch.tensor(vector["value_loss"][row]).mean(), 1e-5)


def test_value_loss_on_recorded_rows():
    vector = VECTORS["repl_loss"]
    ends = torch.tensor(vector["last"])
    batch = TimeStep(
        obs={},
        action=None,
        reward=wave(8, 1.3, 0.2, (2, 4)),
        is_first=torch.tensor([[True, False, False, True], [True, False, False, False]]),
        terminated=ends,
        mask=torch.ones(2, 4, dtype=torch.bool),
    )
    behaviour, aimed_at = tabled(), []
    value_loss = behaviour._value_loss

    def noting(log_p: Tensor, target: Tensor, feature: Tensor) -> Tensor:
        aimed_at.append(target)
        return value_loss(log_p, target, feature)

    behaviour._value_loss = noting  # type: ignore[method-assign]
    loss = behaviour.replay_loss(FEATURE, batch, torch.tensor(vector["boot"]))
    close(aimed_at[0], vector["ret"], 1e-5)
    close(loss, torch.tensor(vector["loss"]).mean(), 1e-5)


def fill(parameters: dict[str, Tensor]) -> None:
    """The rule of the vectors: names sorted, 0.3 sin(0.37 (j + 1) + 1.7 i); scales one more; kernels are [in, out]."""
    for i, name in enumerate(sorted(parameters)):
        weight = parameters[name]
        flat = 0.3 * torch.sin(0.37 * torch.arange(1.0, weight.numel() + 1) + 1.7 * i)
        value = flat.reshape(weight.T.shape).T if weight.ndim == 2 else flat
        weight.data.copy_(value + 1 if name.endswith("scale") else value)


def named(prefix: str, mlp: MLP, **outputs: nn.Module) -> dict[str, Tensor]:
    pairs = [(f"mlp/linear{i}", linear) for i, linear in enumerate(mlp.linears)]
    pairs += [(f"head/{name}", output) for name, output in outputs.items()]
    found = {f"{prefix}/mlp/norm{i}/scale": norm.weight for i, norm in enumerate(mlp.norms)}
    for name, linear in pairs:
        found |= {f"{prefix}/{name}/kernel": linear.weight, f"{prefix}/{name}/bias": linear.bias}
    return found


def test_heads():
    vector = VECTORS["heads"]
    actor, cont = Actor(6, 4, 1, ActionCodec(2, (-1.0, -1.0), (1.0, 1.0))), MLP(6, 4, 1, 1)
    parameters = named("pol", actor.torso, mean=actor.outputs["mean"], stddev=actor.outputs["std"])
    parameters |= named("con", cont, logit=cont.out)
    assert {k: list(v.shape)[::-1] for k, v in parameters.items()} == vector["params"]
    fill(parameters)
    x = wave(12, 0.4, 0.2, (2, 6))
    policy = actor(x)
    close(policy.mean, vector["mean"], 1e-5)
    close(policy.std, vector["std"], 1e-5)
    close(policy.log_prob(torch.tensor([[0.3, -0.8], [1.2, 0.0]])), vector["logp"], 1e-5)
    close(policy.entropy(), vector["entropy"], 1e-5)
    logit = cont(x)[:, 0]
    close(logit.sigmoid(), vector["con_prob"], 1e-5)
    soft = torch.tensor([1 - 1 / 333, 0.0])
    loss = nn.functional.binary_cross_entropy_with_logits(logit, soft, reduction="none")
    close(loss, vector["con_loss"], 1e-5)


@pytest.mark.parametrize(
    ("units", "actor", "critic"),
    [
        (64, 50_706, 66_111),
        (256, 792_594, 853_503),
        (384, 1_778_706, 1_869_951),
        (512, 3_158_034, 3_279_615),
        (768, 7_096_338, 7_278_591),
        (1024, 12_607_506, 12_850_431),
        (1536, 28_348_434, 28_712_703),
    ],
)
def test_parameter_counts(units, actor, critic):
    with torch.device("meta"):
        spaces = Spaces({}, ActionCodec(18))
        behaviour = ActorCriticConfig(units=units).build(spaces, 10 * units)
    counts = [sum(p.numel() for p in part.parameters()) for part in (behaviour.actor, behaviour.critic)]
    assert counts == [actor, critic]


@pytest.mark.parametrize(("size", "units", "total"), [("1m", 64, 688_004), ("200m", 1024, 165_967_124)])
def test_parameters_of_world_and_behaviour_without_the_slow_critic(size, units, total):
    spaces = Spaces({"image": (3, 64, 64)}, ActionCodec(18))
    with torch.device("meta"):
        world = DreamerV3Config(size=size).build(spaces)
        agent = Agent(world, ActorCriticConfig(units=units).build(spaces, world.feature_dim))
    counts = parameter_counts(agent)
    assert counts["world"] + counts["behaviour"] == total
    assert counts["behaviour"] == counts["behaviour.actor"] + counts["behaviour.critic"]


@pytest.mark.parametrize(
    ("codec", "total"),
    [(ActionCodec(17), 165_965_075), (ActionCodec(6, (-1.0,) * 6, (1.0,) * 6), 165_948_686)],
    ids=["crafter", "dmc_vision walker"],
)
def test_published_parameter_counts_of_recipes_from_pictures(codec, total):
    spaces = Spaces({"image": (3, 64, 64)}, codec)
    with torch.device("meta"):
        world = DreamerV3Config(size="200m").build(spaces)
        agent = Agent(world, ActorCriticConfig(units=1024).build(spaces, world.feature_dim))
    counts = parameter_counts(agent)
    assert counts["world"] + counts["behaviour"] == total
