"""DreamerV3's world: what its losses see and forget, its memo, its noise, its dtypes."""

import copy
import itertools
import pickle
from dataclasses import replace

import pytest
import torch

from ladder import Climb
from oneiro import Agent, tree
from oneiro.errors import OneiroError
from oneiro.spaces import ActionCodec, Spaces
from oneiro.testing.rows import random_rows, with_restarts
from oneiro.training.laprop import LaProp
from oneiro.types import TimeStep
from oneiro.worlds.dreamerv3 import DreamerV3, DreamerV3Config

TINY = {"units": 16, "deter_dim": 16, "stoch": 3, "classes": 4, "depth": 1, "blocks": 4}
BOTH = Spaces({"image": (1, 48, 48), "vector": (5,), "kind": (3,)}, ActionCodec(3), {"kind": 3})
VECTOR = Spaces({"vector": (5,)}, ActionCodec(2, (-1.0, 0.0), (1.0, 4.0)))


def build(spaces: Spaces = VECTOR, **fields: object) -> DreamerV3:
    return DreamerV3Config(**{**TINY, "compute_dtype": "float32", **fields}).build(spaces)  # type: ignore[arg-type]


def rows(spaces: Spaces = VECTOR, n: int = 4, steps: int = 5) -> TimeStep:
    batch = with_restarts(random_rows(spaces)(n, steps, 0))
    if "kind" in spaces.obs:
        kind = torch.nn.functional.one_hot(torch.randint(3, (n, steps)), 3).float()
        batch = replace(batch, obs={**batch.obs, "kind": kind})
    return batch


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    world, batch = (
        build(BOTH, dyn_weight=0.5, image_weight=2.0, vector_weight=3.0, cont_weight=4.0),
        rows(BOTH),
    )
    losses = world.losses(batch, ["all"])
    m = {name.removeprefix("world/"): value for name, value in losses.metrics.items()}
    expected = 2 * m["image"] + 3 * (m["vector"] + m["kind"]) + m["reward"] + 4 * m["cont"]
    expected += 0.5 * m["kl_dyn"] + 0.1 * m["kl_rep"]
    assert torch.allclose(losses.by_part["all"], expected, rtol=1e-5)
    assert m["kl_dyn"] >= 1


@pytest.mark.parametrize(
    "name", ["reward", "cont", "kl_dyn", "kl_rep", "kl", "loss", "values", "type", "update", "float", "a.b"]
)
def test_an_observation_may_have_any_name(name: str) -> None:
    """It is explained as under its usual name: same loss, gradient of its own head, drawn."""
    plain, named = Spaces({"vector": (5,)}, ActionCodec(3)), Spaces({name: (5,)}, ActionCodec(3))
    batch = rows(plain)
    torch.manual_seed(3)
    world = build(plain, vector_weight=2.0)
    torch.manual_seed(3)
    other = build(named, vector_weight=2.0)
    torch.manual_seed(4)
    expected = world.losses(batch, ["all"]).by_part["all"]
    torch.manual_seed(4)
    found = other.losses(replace(batch, obs={name: batch.obs["vector"]}), ["all"])
    assert torch.equal(found.by_part["all"], expected)
    assert {"world/reward", "world/cont", "world/kl", "world/loss"} < found.metrics.keys()
    found.by_part["all"].backward()
    assert all(p.grad is not None and p.grad.any() for p in other.decoder.heads.parameters())
    assert other.decode(other.start(2))[name].shape == (2, 5)
    other.load_state_dict(other.state_dict())


def test_usual_names_keep_their_weights_and_metrics() -> None:
    world = build(BOTH)
    assert {"decoder.heads.vector.weight", "decoder.heads.kind.bias"} < world.state_dict().keys()
    metrics = world.losses(rows(BOTH), ["all"]).metrics
    assert {"world/image", "world/vector", "world/kind", "world/reward"} < metrics.keys()


def test_an_untrained_world_says_what_it_must() -> None:
    """Zero reward; log 255 nats for any target; a picture's error by hand."""
    world, batch = build(BOTH), rows(BOTH)
    losses = world.losses(batch, ["all"])
    assert losses.metrics["world/reward"].item() == pytest.approx(5.541, abs=1e-3)
    assert losses.trace is not None
    reward, cont = world.judge(losses.trace)
    assert torch.equal(reward, torch.zeros(4, 5))
    assert cont.min() > 0
    assert cont.max() <= 1
    drawn = world.decode(losses.trace)
    assert drawn["kind"].sum(-1).eq(1).all()
    error = (drawn["image"] - batch.obs["image"] / 255).square().sum((2, 3, 4)).mean()
    assert losses.metrics["world/image"].item() == pytest.approx(error.item(), rel=1e-4)


def test_it_learns_what_it_is_shown() -> None:
    torch.manual_seed(1)
    world, batch = build(), rows(steps=4)
    optimizer = torch.optim.Adam(world.parameters(), 2e-2)
    history = []
    for _ in range(25):
        losses = world.losses(batch, ["all"])
        optimizer.zero_grad()
        losses.by_part["all"].backward()
        optimizer.step()
        history.append(losses.metrics)
    first, last = history[0], history[-1]
    assert last["world/vector"] < 0.5 * first["world/vector"]
    assert last["world/reward"] < 0.6 * first["world/reward"]
    assert last["world/cont"] < first["world/cont"]


def test_the_continuation_is_learned_without_its_discount() -> None:
    """Fitted to rows that all go on, the head says 1 - 1/horizon and the world says 1."""
    world, batch = build(horizon=10.0), rows()
    batch = replace(batch, terminated=torch.zeros_like(batch.terminated))
    with torch.no_grad():
        world.cont.out.weight.zero_()
        world.cont.out.bias.fill_(torch.logit(torch.tensor(0.9)))
    losses = world.losses(batch, ["all"])
    entropy = -(0.9 * torch.log(torch.tensor(0.9)) + 0.1 * torch.log(torch.tensor(0.1)))
    assert torch.allclose(losses.metrics["world/cont"], entropy, atol=1e-5)
    assert losses.trace is not None
    assert torch.allclose(world.judge(losses.trace)[1], torch.ones(4, 5), atol=1e-5)


def test_actions_of_a_box_are_mapped_from_its_bounds() -> None:
    world = build()
    action = torch.tensor([[-1.0, 0.0], [1.0, 2.0], [3.0, 8.0]])
    assert torch.equal(world._action(action), torch.tensor([[-1.0, -1.0], [1.0, 0.0], [1.0, 1.0]]))


def test_the_trace_is_the_state_after_each_row() -> None:
    """Chance held still by certain posteriors: each is its likeliest class."""
    world, batch = build(unimix=1e-6), rows()
    with torch.no_grad():
        world.dynamics.seen_logit.weight.mul_(1e4)
        losses = world.losses(batch, ["all"])
        state = world.start(4)
        for t in range(5):
            state = world.observe(state, batch.at(t))
            assert losses.trace is not None
            found = tree.map(lambda x, t=t: x[:, t], losses.trace)
            assert torch.allclose(found["deter"], state["deter"], atol=1e-5)
            assert torch.equal(found["stoch"], state["stoch"])
    assert losses.after is not None
    assert torch.equal(losses.after["stoch"], state["stoch"])


def test_the_memo_is_small_and_enough() -> None:
    world, batch = build(), rows()
    with torch.no_grad():
        state = world.absorb(world.start(4), batch)
    memo = world.memo(state)
    assert {name: x.dtype for name, x in memo.items()} == {"deter": torch.float16, "stoch": torch.uint8}
    recalled = world.recall(memo, 4)
    assert torch.equal(recalled["stoch"], state["stoch"])
    assert torch.allclose(recalled["deter"], state["deter"], atol=1e-3)
    blank = world.recall(world.memo(world.start(2)), 2)
    assert torch.equal(blank["stoch"], world.start(2)["stoch"])


def test_a_row_beside_which_nothing_is_stored_recalls_the_beginning() -> None:
    """The replay gives zeros for it, which are no class 0."""
    world, batch = build(), rows()
    with torch.no_grad():
        world.dynamics.initial = lambda n: (torch.full((n, 16), 0.5), torch.zeros(n, 3, 4))  # a learned one
        memo = world.memo(world.absorb(world.start(4), batch))
    mixed = {name: torch.cat([x[:2], torch.zeros_like(x[2:])]) for name, x in memo.items()}
    recalled = world.recall(mixed, 4)
    assert torch.equal(recalled["deter"][:2], memo["deter"][:2].float())
    assert recalled["stoch"][:2].sum(-1).eq(1).all()
    for name in ("deter", "stoch"):
        assert torch.equal(recalled[name][2:], world.start(4)[name][2:])


def test_rows_without_a_draw_are_independent_in_a_dream() -> None:
    world = build()
    state = tree.repeat({k: v for k, v in world.start(1).items() if k != "draw"}, 64)
    with torch.no_grad():
        found = world.step(state, torch.zeros(64, 2)).state
    assert "draw" not in found
    assert len(torch.unique(found["stoch"].flatten(1), dim=0)) > 8


def test_a_stepper_that_does_not_judge_dreams_the_same() -> None:
    world = build().eval()
    action = torch.eye(world.spaces.action.dim)[torch.zeros(4, dtype=torch.long)]
    found = []
    for judges in (True, False):
        torch.manual_seed(0)
        found.append(world.stepper(judges=judges)(world.start(4), action, 1.0))
    for name, x in found[0].state.items():
        assert torch.equal(x, found[1].state[name])
    assert found[0].reward is not None
    assert found[1].reward is found[1].cont is None


def test_bfloat16_layers_give_about_the_same_and_float32_outside() -> None:
    torch.manual_seed(0)
    wide = build(BOTH)
    narrow = build(BOTH, compute_dtype="bfloat16")
    narrow.load_state_dict(wide.state_dict())
    batch = rows(BOTH)
    with torch.no_grad():
        a, b = (w.losses(batch, ["all"]).metrics["world/image"] for w in (wide, narrow))
    assert torch.allclose(a, b, rtol=0.02)
    losses = narrow.losses(batch, ["all"])
    losses.by_part["all"].backward()
    assert {p.grad.dtype for p in narrow.parameters() if p.grad is not None} == {torch.float32}
    assert {x.dtype for x in tree.leaves(losses.trace)} == {torch.float32}
    assert losses.metrics["world/loss"].dtype == torch.float32


def test_what_it_cannot_take_is_refused_by_name() -> None:
    with pytest.raises(OneiroError, match="'image' is 84 x 84"):
        build(Spaces({"image": (3, 84, 84)}, ActionCodec(2)))
    with pytest.raises(OneiroError, match="pictures of one size"):
        build(Spaces({"image": (3, 64, 64), "map": (3, 48, 48)}, ActionCodec(2)))
    with pytest.raises(OneiroError, match="at least one modality"):
        build(Spaces({}, ActionCodec(2)))
    with pytest.raises(ValueError, match="multiple of blocks"):
        DreamerV3Config(deter_dim=20, blocks=8)
    with pytest.raises(ValueError, match="needs actions"):
        build().losses(replace(rows(), action=None), ["all"])
    with pytest.raises(ValueError, match=r"lack \['vector'\]"):
        build(BOTH).losses(
            replace(rows(BOTH), obs={"image": rows(BOTH).obs["image"], "kind": rows(BOTH).obs["kind"]}),
            ["all"],
        )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("n", [2, 9])  # few rows are multiplied in float32
def test_an_agents_observer_follows_every_change_of_the_weights(n: int, dtype: str) -> None:
    spaces = Spaces(obs={"image": (3, 48, 48), "vector": (3,)}, action=ActionCodec(2))
    world = build(spaces, compute_dtype=dtype)
    observe, batch = world.observer(), rows(spaces, n, 3)
    fresh = build(spaces, compute_dtype=dtype).state_dict()
    parameters = list(world.parameters())

    def step() -> None:
        optimizer = LaProp(lr=0.1, warmup=0).build(parameters)
        world.losses(batch, ("all",)).by_part["all"].backward()
        optimizer.step()

    def swap() -> None:
        for parameter in parameters:
            parameter.data = parameter.data * 1.5

    def through_another_dtype() -> None:
        world.to(torch.float64).to(torch.float32)
        for parameter in parameters:
            parameter.data.add_(0)

    seen = []
    for change in (lambda: None, step, lambda: world.load_state_dict(fresh), swap, through_another_dtype):
        change()
        state, found = world.start(n), []
        for one in (observe, world.observe):
            torch.manual_seed(4)
            with torch.no_grad():
                found.append(one(tree.clone(state), batch.at(1)))
        torch.testing.assert_close(found[0]["deter"], found[1]["deter"], atol=1e-5, rtol=1e-4)
        seen.append(found[0]["deter"])
    assert not any(torch.allclose(a, b) for a, b in itertools.pairwise(seen[:4]))
    assert torch.equal(seen[3], seen[4])


def test_a_copy_of_an_agent_sees_by_its_own_weights() -> None:
    agent, row = Agent(build(), Climb()), rows().at(1)

    def seen(agent: Agent) -> torch.Tensor:
        torch.manual_seed(0)
        return agent.observe(agent.start(4), row).state["deter"]

    before = seen(agent)
    other = copy.deepcopy(agent)
    with torch.no_grad():
        for parameter in other.world.parameters():
            parameter.mul_(0.5)
    assert torch.equal(seen(agent), before)
    assert not torch.allclose(seen(other), before)
    assert torch.equal(seen(pickle.loads(pickle.dumps(agent))), before)
