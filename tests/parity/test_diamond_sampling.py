"""DIAMOND's choice of segments and its optimizer against vectors of the released code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from oneiro.data.batches import gather
from oneiro.data.episodes import Episode
from oneiro.data.recent import RecentSegments, recency_weights, segment
from oneiro.data.store import EpisodeStore
from oneiro.nets.frame_denoiser import ActionEmbedding
from oneiro.spaces import ActionCodec
from oneiro.training.adamw import AdamW, does_decay

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "diamond.json").read_text())


def episode(id: int, rows: int) -> Episode:
    """Rows 1, 2, 3, ..."""
    count = np.arange(1, rows + 1, dtype=np.float32)
    return Episode(
        id=id,
        obs={"vector": count[:, None] + 100 * id},
        action=count[:, None],
        reward=np.zeros(rows, np.float32),
        terminated=np.zeros(rows, bool),
    )


@pytest.mark.parametrize("case", VECTORS["episode_weights"], ids=lambda c: str(c["num_episodes"]))
def test_episode_weights(case: dict) -> None:
    found = recency_weights(np.array(case["lengths"]), (0.1, 0.1, 0.1, 0.7))
    np.testing.assert_allclose(found, case["weights"], atol=1e-6)


def test_segment_padding(tmp_path: Path) -> None:
    case = VECTORS["segment_padding"]
    with EpisodeStore(tmp_path, ram=8 << 20) as store:
        store.add(episode(0, len(case["episode_obs"])))
        for expected in case["segments"]:
            length = expected["stop"] - expected["start"]
            cut = segment(0, 0, expected["start"], length, len(case["episode_obs"]))
            batch = gather(store, ("vector", "action", "reward"), 1, length, [cut])
            assert batch.obs["vector"][0, :, 0].tolist() == expected["obs"]
            assert batch.action is not None
            assert batch.action[0, :, 0].tolist() == expected["act"]
            assert batch.mask[0].int().tolist() == expected["mask"]


@pytest.mark.parametrize("pads", ["left", "both"])
def test_where_segments_lie(tmp_path: Path, pads: str) -> None:
    """Every row is met, padding is where it may be, and new episodes are met as often as they should."""
    with EpisodeStore(tmp_path, ram=8 << 20) as store:
        for id in range(8):
            store.add(episode(id, 5))
        sampler = RecentSegments(size=64, length=4, pads=pads).build(store, seed=0)  # type: ignore[arg-type]
        batches = [sampler.batch(k) for k in range(20)]
        rows = torch.cat([b.obs["vector"][..., 0][b.mask] for b in batches])
        mask = torch.cat([b.mask for b in batches])
        again = sampler.batch(3)
    assert torch.equal(again.obs["vector"], batches[3].obs["vector"])
    assert set(rows.int().tolist()) == {100 * id + r for id in range(8) for r in range(1, 6)}
    newest = (rows > 600).float().mean()
    assert newest == pytest.approx(0.7, abs=0.05)
    assert mask.any(1).all()
    assert bool(mask[:, -1].all()) == (pads == "left")
    starts = torch.cat([b.is_first.any(1) for b in batches]).float().mean()
    assert 0.3 < starts < 0.9


def test_warmup() -> None:
    schedule = AdamW().schedule
    for step, rate in VECTORS["lr_warmup"]["lr_at_update"].items():
        assert schedule(int(step)) == pytest.approx(rate)


def test_only_weights_of_layers_decay() -> None:
    module = nn.ModuleList(
        [nn.Linear(2, 2), nn.Conv2d(2, 2, 3), nn.GroupNorm(1, 2), nn.LSTMCell(2, 2), ActionEmbedding(ActionCodec(3), 2)]
    )  # fmt: skip
    decays = {name for name, p in module.named_parameters() if does_decay(p)}
    assert decays == {"0.weight", "1.weight", "3.weight_ih", "3.weight_hh"}
    optimizer = AdamW(weight_decay=0.5, warmup=0, lr=0.1).build(module.parameters())
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in module.named_parameters():
        torch.testing.assert_close(p, before[name] * (0.95 if name in decays else 1.0))
