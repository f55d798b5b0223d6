"""`VMC.losses` by value: V's from its formula, M's from the recorded outputs of the released graph.

M's expected numbers are made with NumPy from the mixtures and logits in `doom_mdnrnn_small`, so that nothing of
the library's own loss is in them. z is drawn with a deviation of exp(-100): what is drawn is the stored mean.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from oneiro.spaces import ActionCodec, Spaces
from oneiro.types import State, TimeStep
from oneiro.worlds.vmc import VMC, VMCConfig

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "worldmodels.json").read_text())[
    "doom_mdnrnn_small"
]
DOOM = Spaces({"image": (3, 64, 64)}, ActionCodec(1, (-1.0,), (1.0,)))
RESTART = torch.tensor(VECTOR["restart"]).bool()  # frame 3 of row 0 and frame 2 of row 1 follow a jump
ENDED = torch.tensor([[False, False, True, False], [False, True, False, False]])  # the frame before it


def world(*, end_weight: float = 10.0, kl_floor: float = 0.5) -> VMC:
    """V of a few channels, M with the weights of the vector."""
    vmc = VMCConfig(
        z_dim=3,
        channels=(2, 2, 4, 4),
        hidden_dim=4,
        num_mixtures=2,
        compute_dtype="float32",
        end_weight=end_weight,
        kl_floor=kl_floor,
    ).build(DOOM)
    weight = {name.split("/")[-1]: torch.tensor(w) for name, w in VECTOR["weights"].items()}
    lstm, head = vmc.memory.lstm, vmc.memory.head
    lstm.kernel.data, lstm.bias.data = weight["kernel:0"], weight["bias:0"]
    head.weight.data, head.bias.data = weight["output_w:0"].T.contiguous(), weight["output_b:0"]
    return vmc


def rows(part: slice = slice(None)) -> TimeStep:
    """Frames of the vector as arrival rows: the action taken at frame t comes with frame t + 1."""
    z, action = torch.tensor(VECTOR["z"]), torch.tensor(VECTOR["action"])[..., None]
    arrived = torch.cat([torch.zeros_like(action[:, :1]), action[:, :-1]], 1)
    return TimeStep(
        obs={},
        action=arrived[:, part],
        reward=None,
        is_first=RESTART[:, part],
        terminated=ENDED[:, part],
        mask=torch.ones_like(RESTART)[:, part],
        memo={"mu": z[:, part], "logvar": torch.full_like(z, -200.0)[:, part]},
    )


def padded(left: int, right: int) -> TimeStep:
    """The same with rows in front and behind that are not there."""

    def pad(x: Tensor, value: float | bool) -> Tensor:
        front, back = (x.new_full((len(x), n, *x.shape[2:]), value) for n in (left, right))
        return torch.cat([front, x, back], 1)

    real = rows()
    assert real.action is not None
    return TimeStep(
        obs={},
        action=pad(real.action, 7.0),
        reward=None,
        is_first=pad(real.is_first, False),
        terminated=pad(real.terminated, True),
        mask=pad(real.mask, False),
        memo={"mu": pad(real.memo["mu"], 5.0), "logvar": pad(real.memo["logvar"], -200.0)},
    )


def nll_of(case: dict) -> np.ndarray:
    """[batch, transition] nats per dimension, from the recorded mixtures."""
    logmix, mean, logstd = (np.array(case[k]).reshape(2, 3, 3, 2) for k in ("logmix", "mean", "logstd"))
    y = np.array(VECTOR["z"])[:, 1:, :, None]
    normal = np.exp(-0.5 * ((y - mean) / np.exp(logstd)) ** 2) / (np.exp(logstd) * np.sqrt(2 * np.pi))
    return -np.log((np.exp(logmix) * normal).sum(-1)).mean(-1)


def ending_of(case: dict, target: np.ndarray, weight: float) -> np.ndarray:
    """[batch, transition] cross-entropy of the flag, positives weighted."""
    p = 1 / (1 + np.exp(-np.array(case["restart_logit"]).reshape(2, 3)))
    return -np.where(target, weight * np.log(p), np.log(1 - p))


ZERO = VECTOR["zero_initial_state_case"]
VALID = np.array([[True, True, False], [True, False, True]])  # transitions that are no jump


def test_the_formulas_of_this_file_give_the_recorded_costs():
    for case in (VECTOR, ZERO):
        assert nll_of(case).mean() == pytest.approx(case["z_cost"], abs=1e-5)
        found = ending_of(case, np.array(VECTOR["restart"])[:, 1:] == 1, 10.0).mean()
        assert found == pytest.approx(case["r_cost"], abs=1e-5)


def check(losses, nll: np.ndarray, ending: np.ndarray) -> None:
    metrics = losses.metrics
    assert metrics["memory/nll"].item() == pytest.approx(nll.mean(), abs=1e-5)
    assert metrics["memory/terminated"].item() == pytest.approx(ending.mean(), abs=1e-5)
    assert losses.by_part["memory"].item() == pytest.approx(nll.mean() + ending.mean(), abs=2e-5)
    assert set(losses.by_part) == {"memory"}


@pytest.mark.parametrize("weight", [1.0, 10.0])
@pytest.mark.parametrize("batch", [rows(), padded(2, 0), padded(0, 3), padded(1, 2)])
def test_memory_loss_of_whole_sequences(weight: float, batch: TimeStep):
    """The end is told by the frame it came with, and jumps and padding count for nothing."""
    losses = world(end_weight=weight).losses(batch, ("memory",))
    ended = ENDED[:, 1:].numpy()
    check(losses, nll_of(ZERO)[VALID], ending_of(ZERO, ended, weight)[VALID])


def test_memory_loss_goes_on_where_the_piece_before_stopped():
    """Two pieces of two frames: the transition across the cut belongs to the second."""
    vmc, ended = world(), ENDED[:, 1:].numpy()
    nll, ending = nll_of(ZERO), ending_of(ZERO, ended, 10.0)
    first = vmc.losses(rows(slice(0, 2)), ("memory",))
    check(first, nll[:, :1], ending[:, :1])
    second = vmc.losses(rows(slice(2, 4)), ("memory",), first.after)
    later = VALID[:, 1:]
    check(second, nll[:, 1:][later], ending[:, 1:][later])
    for losses, name in ((second, "h"), (second, "c")):
        assert losses.after is not None
        torch.testing.assert_close(losses.after[name], torch.tensor(ZERO[f"final_{name}"]), atol=1e-5, rtol=0)
        assert not losses.after[name].requires_grad
    assert second.after is not None
    assert torch.equal(second.after["z"], torch.tensor(VECTOR["z"])[:, -1])
    assert torch.equal(second.after["is_first"], RESTART[:, -1].float())


def test_memory_loss_begins_in_the_state_it_is_given():
    """Row 1 carries (h0, c0) into its first step, row 0 drops it at once: its first frame begins an episode."""
    before: State = {
        "z": torch.tensor(VECTOR["z"])[:, 0],
        "is_first": RESTART[:, 0].float(),
        "h": torch.tensor(VECTOR["h0"]),
        "c": torch.tensor(VECTOR["c0"]),
    }
    losses = world().losses(rows(slice(1, 4)), ("memory",), before)
    ended = ENDED[:, 1:].numpy()
    nll, ending = nll_of(ZERO), ending_of(ZERO, ended, 10.0)
    nll[1, 0], ending[1, 0] = nll_of(VECTOR)[1, 0], ending_of(VECTOR, ended, 10.0)[1, 0]
    assert abs(nll[1, 0] - nll_of(ZERO)[1, 0]) > 1e-3  # the state matters
    check(losses, nll[VALID], ending[VALID])


def test_memory_draws_z_anew_from_the_stored_posterior():
    batch, vmc = rows(), world()
    batch.memo["logvar"].fill_(2 * np.log(0.1))
    torch.manual_seed(3)
    found = vmc.losses(batch, ("memory",)).metrics["memory/nll"]
    torch.manual_seed(3)
    drawn = rows()
    drawn.memo["mu"].add_(0.1 * torch.randn(2, 4, 3))  # inputs and targets alike
    assert found.item() == pytest.approx(
        vmc.losses(drawn, ("memory",)).metrics["memory/nll"].item(), abs=1e-5
    )


def frames() -> TimeStep:
    """Rows [2, 3] with pictures; the last row of the second sequence is padding."""
    image = (torch.rand(2, 3, 3, 64, 64) * torch.linspace(0.0, 1.0, 6).reshape(2, 3, 1, 1, 1) * 255).byte()
    flags = torch.zeros(2, 3, dtype=torch.bool)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    return TimeStep(
        obs={"image": image}, action=None, reward=None, is_first=flags, terminated=flags, mask=mask
    )


def test_vision_loss():
    """Squared error summed over a frame, and KL not below kl_floor nats times z_dim, both per frame."""
    vmc, batch = world(kl_floor=0.4), frames()
    vmc.vision.fc_mu.weight.data *= 20  # frames on both sides of the floor
    torch.manual_seed(5)
    losses = vmc.losses(batch, ("vision",))
    image = batch.obs["image"][batch.mask].float() / 255
    torch.manual_seed(5)
    noise = torch.randn(5, 3)
    with torch.no_grad():
        mu, logvar = vmc.vision.encode(image)
        recon = vmc.vision.decode(mu + logvar.exp().sqrt() * noise).numpy().astype(float)
    error = ((recon - image.numpy()) ** 2).sum((1, 2, 3))
    m, v = mu.numpy().astype(float), np.exp(logvar.numpy().astype(float))
    kl = 0.5 * (m**2 + v - np.log(v) - 1).sum(1)
    assert kl.min() < 1.2 < kl.max()
    assert losses.metrics["vision/reconstruction"].item() == pytest.approx(error.mean(), rel=1e-5)
    assert losses.metrics["vision/kl"].item() == pytest.approx(np.maximum(kl, 1.2).mean(), rel=1e-5)
    expected = error.mean() + np.maximum(kl, 1.2).mean()
    assert losses.by_part["vision"].item() == pytest.approx(expected, rel=1e-5)
    assert set(losses.by_part) == {"vision"}
