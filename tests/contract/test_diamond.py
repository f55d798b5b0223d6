"""DIAMOND at a tiny size keeps the contract."""

from dataclasses import replace

import pytest
import torch

from oneiro import tree
from oneiro.behaviours.recurrent_actor_critic import RecurrentActorCriticConfig
from oneiro.nets.ddpm import DDPM
from oneiro.nets.edm import EDMSampler
from oneiro.spaces import ActionCodec, Spaces
from oneiro.testing import check_behaviour, check_world, random_rows, require
from oneiro.worlds.diamond import Diamond, DiamondConfig
from oneiro.worlds.diamond_denoiser import DenoiserConfig
from oneiro.worlds.diamond_reward import RewardConfig

SPACES = Spaces({"image": (3, 8, 12)}, ActionCodec(3))
TINY = DiamondConfig(
    denoiser=DenoiserConfig(
        context=4,
        channels=(8, 8),
        blocks=1,
        attention=(1,),
        cond_dim=24,
        sampler=EDMSampler(steps=2),
    ),
    reward=RewardConfig(channels=(8, 8), blocks=1, cond_dim=8, hidden_dim=8),
    compute_dtype="float32",
)


def tiny(**changes: object) -> DiamondConfig:
    return replace(TINY, denoiser=replace(TINY.denoiser, **changes))  # type: ignore[arg-type]


def test_diamond_conforms() -> None:
    checks = check_world(TINY.build(SPACES))
    require(checks)
    skipped = {check.name for check in checks if check.outcome == "skipped"}
    assert not skipped & {"context is enough", "an is_first row erases history"}


@pytest.mark.parametrize(
    "rule", ["losses move exactly their part", "temperature 0 is deterministic", "rows are independent"]
)
def test_the_ddpm_variant_conforms(rule: str) -> None:
    config = tiny(objective="ddpm", context=3, rounding="round", ddpm=DDPM(steps=2))
    box = ActionCodec(2, (-1.0, -1.0), (1.0, 1.0))
    require(check_world(config.build(Spaces(SPACES.obs, box)), only=rule))


@pytest.mark.parametrize("groups", [(3,), (2, 2)], ids=["discrete", "multi-discrete"])
def test_the_recurrent_actor_critic_conforms(groups: tuple[int, ...]) -> None:
    spaces = Spaces(SPACES.obs, ActionCodec(sum(groups), groups=groups))
    world = TINY.build(spaces)
    config = RecurrentActorCriticConfig(
        channels=(8, 8), hidden_dim=8, horizon=3, compute_dtype="float32", epsilon=0.5
    )
    behaviour = config.build(spaces, world.feature_dim)
    for parameter in behaviour.parameters():  # the heads begin at zero, where all actions are alike
        torch.nn.init.normal_(parameter, std=0.3)
    require(check_behaviour(behaviour, world))


def settled(world: Diamond, rows: int = 4) -> tuple[dict, object]:
    batch = random_rows(world.spaces)(2, rows, 0)
    with torch.no_grad():
        return world.absorb(world.start(2), batch), batch


def test_the_reward_model_is_burnt_in_on_the_window() -> None:
    """What `step` does in one go equals the LSTM run over the real transitions, then over the imagined one."""
    torch.manual_seed(0)
    world = TINY.build(SPACES).eval()
    state, batch = settled(world)
    action = batch.action[:, 0]  # type: ignore[attr-defined]
    with torch.no_grad():
        prediction = world.step(tree.clone(state), action, 0.0)
        frames = torch.cat([state["frames"], prediction.state["frames"][:, -1:]], 1).float() / 127.5 - 1
        actions = torch.cat([state["action"], action[:, None]], 1)
        live = torch.ones(2, 4, dtype=torch.bool)
        logits, h, _ = world.reward(frames, actions, *world.reward.start(2), live, ~live)
    torch.testing.assert_close(prediction.state["h"], h, atol=1e-5, rtol=1e-5)
    assert prediction.cont is not None
    torch.testing.assert_close(prediction.cont, logits[:, -1, 3:].softmax(-1)[:, 0], atol=1e-5, rtol=1e-5)


def test_only_known_rows_are_seen_by_the_reward_model() -> None:
    """An episode that is two rows old is burnt in on one transition."""
    world = TINY.build(SPACES).eval()
    batch = random_rows(world.spaces)(2, 2, 0)
    state, other = world.start(2), world.start(2)
    other["frames"] = torch.full_like(other["frames"], 200)  # what is unknown may hold anything
    with torch.no_grad():
        found = [
            world.step(world.absorb(s, batch), batch.action[:, 0], 0.0).state["h"] for s in (state, other)
        ]
    assert torch.equal(*found)


def test_self_feeding_uses_the_networks_own_frame() -> None:
    """The context of the second target is what the network made of the first, on one of the 256 levels."""
    world = tiny(context=1).build(SPACES)
    batch = random_rows(SPACES)(2, 3, 0)
    seen: list[torch.Tensor] = []
    look = world.denoiser.net.look
    world.denoiser.net.look = lambda context: (seen.append(context), look(context))[1]  # type: ignore
    world.losses(batch, ["denoiser"])
    assert len(seen) == 2
    true = batch.obs["image"].float() / 127.5 - 1
    torch.testing.assert_close(seen[0] * 0.5, true[:, 0], atol=1e-5, rtol=0)
    assert (seen[1] * 0.5 - true[:, 1]).abs().max() > 0.1
    level = (seen[1] * 0.5 + 1) * 127.5
    torch.testing.assert_close(level, level.round(), atol=1e-3, rtol=0)


def test_bfloat16_changes_little() -> None:
    """The same losses and the same frame, but for the precision of products."""
    worlds = []
    for dtype in ("float32", "bfloat16"):
        torch.manual_seed(0)
        world = replace(TINY, compute_dtype=dtype).build(SPACES)
        for parameter in world.denoiser.parameters():  # the network begins at zero
            torch.nn.init.normal_(parameter, std=0.1)
        worlds.append(world)
    assert worlds[1].denoiser.net.compute_dtype == torch.bfloat16
    batch = random_rows(SPACES)(2, 6, 0)
    losses, frames = [], []
    for world in worlds:
        torch.manual_seed(1)
        losses.append(world.losses(batch, ["denoiser", "reward"]).by_part)
        state = world.absorb(world.start(2), batch)
        frames.append(world.step(state, batch.action[:, 0]).state["frames"][:, -1])  # type: ignore[index]
    for part in ("denoiser", "reward"):
        torch.testing.assert_close(losses[0][part], losses[1][part], atol=0.02, rtol=0.02)
    difference = (frames[0].int() - frames[1].int()).abs().float()
    assert 0 < difference.mean() < 3
