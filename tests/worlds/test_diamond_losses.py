"""What DIAMOND's networks are asked to answer: by hand."""

import math

import pytest
import torch
from torch import Tensor

from oneiro.nets.ddpm import DDPM
from oneiro.spaces import ActionCodec
from oneiro.worlds.diamond_denoiser import Denoiser, DenoiserConfig
from oneiro.worlds.diamond_reward import RewardConfig, RewardModel


def test_ddpm_is_asked_for_the_noise() -> None:
    """z = sqrt(kept) x + sqrt(1 - kept) (eps + 0.3 u); F answers eps + 0.3 u, from which x follows."""
    config = DenoiserConfig(channels=(8,), blocks=1, cond_dim=8, objective="ddpm", ddpm=DDPM(levels=10))
    denoiser = Denoiser(config, 3, ActionCodec(2))
    frame = torch.rand(4, 3, 2, 2) * 2 - 1
    draw = denoiser.draw(frame)
    draw.level = torch.tensor([0.0, 0.35, 0.6, 0.99])
    noised = denoiser._noised(frame, draw)
    noise = draw.noise + 0.3 * draw.offset
    torch.testing.assert_close(noised.target, noise)
    kept = config.ddpm.kept(torch.tensor([0, 3, 6, 9]))[:, None, None, None]
    torch.testing.assert_close(noised.x, kept.sqrt() * frame + (1 - kept).sqrt() * noise)
    torch.testing.assert_close(noised.clean(noised.target), frame, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(noised.told, torch.tensor([1, 4, 7, 10]) / 10)


LOGITS = torch.tensor(
    [
        [[0.3, -1.0, 2.0, 0.5, -0.5], [9.0, 9.0, -9.0, 9.0, -9.0], [-1.0, 0.0, 1.5, 0.2, 1.0]],
        [[9.0, 9.0, -9.0, -9.0, 9.0], [1.0, 0.5, -2.0, -0.4, 0.8], [0.1, 0.2, 0.4, 2.0, 1.0]],
    ]
)
"""[rows, transitions, 3 reward signs and 2 ends]."""


def nats(logits: Tensor, target: int) -> float:
    """Cross-entropy of one answer."""
    values = logits.tolist()
    return math.log(sum(math.exp(x) for x in values)) - values[target]


def test_reward_and_end_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 0 begins another episode at row 2, row 1 is padded on the left: four transitions of six count."""
    config = RewardConfig(channels=(8,), blocks=1, cond_dim=8, hidden_dim=8)
    model = RewardModel(config, (3, 4, 4), ActionCodec(2), "float32")
    given: dict[str, Tensor] = {}

    def answers(
        frames: Tensor, action: Tensor, h: Tensor, c: Tensor, live: Tensor, fresh: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        given.update(frames=frames, action=action, h=h, c=c, live=live, fresh=fresh)
        return LOGITS, h, c

    monkeypatch.setattr(model, "forward", answers)
    no = torch.zeros(2, 4, dtype=torch.bool)
    first, mask, ended = no.clone(), ~no, no.clone()
    first[0, 2], mask[1, 0] = True, False
    ended[0, 1], ended[1, 3] = True, True
    reward = torch.tensor([[0.0, 5.0, -7.0, 0.0], [9.0, -1.0, -3.0, 0.5]])
    action = torch.tensor([[[1.0, 2], [3, 4], [5, 6], [7, 8]], [[11, 12], [13, 14], [15, 16], [17, 18]]])
    frames = torch.rand(2, 4, 3, 4, 4) + 1
    found = model.loss(frames, action, reward, ended, mask, first)
    # transition t leads to row t + 1: its reward and end count
    counted = [(0, 0, 2, 1), (0, 2, 1, 0), (1, 1, 0, 0), (1, 2, 2, 1)]  # row, transition, sign + 1, end
    expected = {
        "reward": sum(nats(LOGITS[b, t, :3], sign) for b, t, sign, _ in counted) / 4,
        "end": sum(nats(LOGITS[b, t, 3:], end) for b, t, _, end in counted) / 4,
        "reward_right": sum(int(LOGITS[b, t, :3].argmax()) == sign for b, t, sign, _ in counted) / 4,
        "end_right": sum(int(LOGITS[b, t, 3:].argmax()) == end for b, t, _, end in counted) / 4,
    }
    assert {name: float(x) for name, x in found.items()} == pytest.approx(expected, rel=1e-5)
    assert given["live"].tolist() == [[True, False, True], [False, True, True]]
    assert given["fresh"].tolist() == [[False, False, True], [True, False, False]]
    assert given["action"].tolist() == [[[3, 4], [0, 0], [7, 8]], [[0, 0], [15, 16], [17, 18]]]
    assert torch.equal(given["frames"], frames * mask[..., None, None, None])
    assert not given["h"].any()
    assert not given["c"].any()
