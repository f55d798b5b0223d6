"""`reward_on_dreams`: the reward model learns in part on the world's own frames."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from oneiro.spaces import ActionCodec, Spaces
from oneiro.types import TimeStep
from oneiro.worlds.diamond import Diamond, DiamondConfig
from oneiro.worlds.diamond_denoiser import DenoiserConfig
from oneiro.worlds.diamond_reward import RewardConfig

CONFIG = DiamondConfig(
    denoiser=DenoiserConfig(context=2, channels=(8,), blocks=1, cond_dim=16),
    reward=RewardConfig(channels=(8,), blocks=1, cond_dim=8, hidden_dim=8),
    reward_on_dreams=0.5,
    compute_dtype="float32",
)
T = 6


def made(share: float) -> Diamond:
    return replace(CONFIG, reward_on_dreams=share).build(Spaces({"image": (3, 4, 4)}, ActionCodec(3)))


def segments() -> TimeStep:
    """Four of them. In 0 an episode begins at row 4; 1 is padded on the left, 2 on the right."""
    no = torch.zeros(4, T, dtype=torch.bool)
    first, mask = no.clone(), ~no
    first[0, 4] = first[1, 3] = True
    mask[1, :3] = mask[2, 4:] = False
    image = torch.arange(4 * T).view(4, T, 1, 1, 1).expand(4, T, 3, 4, 4).to(torch.uint8)
    action = torch.eye(3)[torch.arange(4 * T).view(4, T) % 3]
    reward = torch.arange(4.0 * T).view(4, T) % 3 - 1
    return TimeStep(
        obs={"image": image}, action=action, reward=reward, is_first=first, terminated=no, mask=mask
    )


def test_dreamed_frames_follow_the_recorded_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments 0 to 2 are dreamed; a dreamed frame is 100 + its row, so all can be told apart."""
    world, batch = made(0.75), segments()
    given: list[tuple[Tensor, Tensor]] = []

    def sample(past: Tensor, action: Tensor, **_: Any) -> Tensor:
        given.append((past, action))
        return torch.full((3, 3, 4, 4), 100 + 2 + len(given) - 1, dtype=torch.uint8)

    monkeypatch.setattr(world.denoiser, "sample", sample)
    found = world._watched(batch)[:, :, 0, 0, 0]
    assert found.tolist() == [
        [0, 1, 102, 103, 4, 105],  # the frame that begins an episode is recorded
        [6, 7, 8, 9, 104, 105],  # padding, then the first frame
        [12, 13, 102, 103, 16, 17],  # padding after the end
        [18, 19, 20, 21, 22, 23],  # not dreamed
    ]
    past, actions = given[-1]  # of row 5
    levels = ((past[:, :, 0, 0, 0] + 1) / 2 * 255).round()
    assert levels[0].tolist() == [128, 4]  # nothing is known before the episode: mid-grey
    assert levels[1].tolist() == [9, 104]
    assert actions[0].tolist() == [[0, 0, 0], batch.action[0, 5].tolist()]  # type: ignore[index]
    assert actions[1].tolist() == batch.action[1, 4:].tolist()  # type: ignore[index]


def test_rewards_stay_and_the_denoiser_learns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world, batch = made(1.0), segments()
    seen: dict[str, Tensor] = {}
    loss = world.reward.loss

    def spied(frames: Tensor, action: Tensor, reward: Tensor, *rest: Tensor) -> dict[str, Tensor]:
        seen.update(frames=frames, reward=reward)
        return loss(frames, action, reward, *rest)

    monkeypatch.setattr(world.reward, "loss", spied)
    world.losses(batch, ["reward"]).by_part["reward"].backward()
    assert torch.equal(seen["reward"], batch.reward)  # type: ignore[arg-type]
    assert seen["frames"].shape == (4, T, 3, 4, 4)
    assert all(p.grad is None for p in world.denoiser.parameters())
    assert any(p.grad is not None and p.grad.any() for p in world.reward.parameters())


def test_by_default_all_is_recorded() -> None:
    world, batch = made(0.0), segments()
    assert world._watched(batch) is batch.obs["image"]
    assert DiamondConfig().reward_on_dreams == 0


def test_a_share_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"share, 0 to 1, got 1.5"):
        made(1.5)
