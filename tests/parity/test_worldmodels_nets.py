"""Networks of World Models against vectors made with the released 2018 code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oneiro.envs.image import shrink
from oneiro.nets.conv_vae import ConvVAE, kl_divergence, vae_loss
from oneiro.nets.lstm import LSTM, sequence_reference
from oneiro.nets.mdn import mdn_nll, mdn_sample, mdn_split, restart_loss

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "worldmodels.json").read_text())


def close(a: Tensor, b: object, tolerance: float) -> None:
    torch.testing.assert_close(a.detach(), torch.as_tensor(b, dtype=a.dtype), atol=tolerance, rtol=0)


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def formula_weights(vae: ConvVAE) -> None:
    """Fill with w_i = amp * sin(0.7 i + v) in TensorFlow's layout, variable v in the vectors' order."""
    layers = [*vae.encoder, vae.fc_mu, vae.fc_logvar, vae.fc_decoder, *vae.decoder]
    for v, variable in enumerate(VECTORS["vae32"]["variables"]):
        layer, shape = layers[v // 2], variable["shape"]
        index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
        value = (variable["amp"] * torch.sin(0.7 * index + v)).float().reshape(shape)
        if len(shape) == 4:
            value = value.permute(3, 2, 0, 1)  # HWIO -> OIHW; H W out in -> in out H W
        elif len(shape) == 2:
            value = value.T
        target = layer.bias if len(shape) == 1 else layer.weight
        assert target.shape == value.shape, variable["name"]
        target.data.copy_(value)


def test_vae_matches_the_released_graph():
    expected = VECTORS["vae32"]
    vae = ConvVAE(32)
    formula_weights(vae)
    index = torch.arange(2 * 64 * 64 * 3, dtype=torch.float64)
    image = (0.5 + 0.5 * torch.sin(0.05 * index)).float().reshape(2, 64, 64, 3).permute(0, 3, 1, 2)
    z = (0.5 * torch.sin(1.3 * torch.arange(64, dtype=torch.float64))).float().reshape(2, 32)
    with torch.no_grad():
        mu, logvar = vae.encode(image)
        recon = vae.decode(z)
    close(mu, expected["mu"], 1e-4)
    close(logvar, expected["logvar"], 1e-4)
    close(recon.mean((1, 2, 3)), expected["recon_mean"], 1e-4)
    for b, row, column, colour, value in expected["recon_samples"]:
        assert recon[b, colour, row, column].item() == pytest.approx(value, abs=1e-4)
    error = (recon - image).square().sum((1, 2, 3)).mean().item()
    kl = kl_divergence(mu, logvar).clamp_min(0.5 * 32).mean().item()
    assert error == pytest.approx(expected["r_loss"], rel=1e-5)
    assert kl == pytest.approx(expected["kl_loss_after_max"], abs=1e-4)
    with torch.no_grad():  # the noise that draws the z of the vector
        error, kl = vae_loss(vae, image, 0.5 * 32, (z - mu) / (0.5 * logvar).exp())
    assert error.mean().item() == pytest.approx(expected["r_loss"], rel=1e-5)
    assert (error + kl).mean().item() == pytest.approx(expected["loss"], rel=1e-5)


def test_published_parameter_counts():
    assert count(ConvVAE(32)) == VECTORS["vae32"]["param_count"] == 4_348_547
    assert count(ConvVAE(64)) == VECTORS["vae64_param_count"] == 4_446_915
    assert count(LSTM(35, 256), nn.Linear(256, 480)) == VECTORS["car_M_param_count"] == 422_368
    assert count(LSTM(66, 512), nn.Linear(512, 961)) == VECTORS["doom_M_param_count"] == 1_678_785


@pytest.mark.parametrize("form", [LSTM.sequence, sequence_reference])
@pytest.mark.parametrize("case", ["carried", "zero"])
def test_doom_memory_matches_the_released_graph(case: str, form):
    vector = VECTORS["doom_mdnrnn_small"]
    expected = vector if case == "carried" else vector["zero_initial_state_case"]
    weight = {name.split("/")[-1]: torch.tensor(w) for name, w in vector["weights"].items()}
    lstm, head = LSTM(5, 4), nn.Linear(4, 19)
    lstm.kernel.data, lstm.bias.data = weight["kernel:0"], weight["bias:0"]
    head.weight.data, head.bias.data = weight["output_w:0"].T.contiguous(), weight["output_b:0"]
    z, action, restart = (torch.tensor(vector[name]) for name in ("z", "action", "restart"))
    x = torch.cat([z, action[..., None], restart[..., None]], -1)[:, :-1]
    reset = restart[:, :-1].bool()
    if case == "zero":
        h, (h_last, c_last) = form(lstm, x, torch.zeros(2, 4), torch.zeros(2, 4), reset)
    else:
        h, (h_last, c_last) = released_restarts(lstm, x, vector, reset)
    out = head(h)
    logmix, mean, logstd = mdn_split(out[..., 1:], 3)
    close(logmix.reshape(-1, 2), expected["logmix"], 1e-5)
    close(mean.reshape(-1, 2), expected["mean"], 1e-5)
    close(logstd.reshape(-1, 2), expected["logstd"], 1e-5)
    close(out[..., 0].flatten(), expected["restart_logit"], 1e-5)
    close(h_last, expected["final_h"], 1e-5)
    close(c_last, expected["final_c"], 1e-5)
    z_cost = mdn_nll(out[..., 1:], z[:, 1:]).mean()
    r_cost = restart_loss(out[..., 0], restart[:, 1:]).mean()
    close(z_cost, expected["z_cost"], 1e-5)
    close(r_cost, expected["r_cost"], 1e-5)
    close(z_cost + r_cost, expected["cost"], 2e-5)


def released_restarts(lstm: LSTM, x: Tensor, vector: dict, reset: Tensor):
    """The released code's quirk: a restart brings back the state fed at the start of the batch, not zero."""
    h = h0 = torch.tensor(vector["h0"])
    c = c0 = torch.tensor(vector["c0"])
    h_all = []
    for t in range(x.shape[1]):
        again = reset[:, t, None]
        h, c = lstm.step(x[:, t], torch.where(again, h0, h), torch.where(again, c0, c))
        h_all.append(h)
    return torch.stack(h_all, 1), (h, c)


@pytest.mark.parametrize("temperature", VECTORS["temperature_sampling"]["cases"])
def test_temperature_sampling(temperature: str):
    vector = VECTORS["temperature_sampling"]
    params = (
        torch.tensor([vector["logmix"], vector["mean"], vector["logstd"]]).permute(1, 0, 2).reshape(1, -1)
    )
    uniform, normal = torch.tensor([vector["uniform"]]), torch.tensor([vector["normal"]])
    z = mdn_sample(params, float(temperature), uniform, normal)
    close(z[0], vector["cases"][temperature]["z_next"], 1e-5)
    # Means that number the components, and no noise: what is drawn is the component.
    params.view(4, 3, 5)[:, 1] = torch.arange(5.0)
    index = mdn_sample(params, float(temperature), uniform, torch.zeros(1, 4))
    assert index[0].tolist() == vector["cases"][temperature]["index"]
    draws = 100_000  # evenly spaced uniforms: each component is drawn as often as it is probable
    even = ((torch.arange(draws) + 0.5) / draws)[:, None].expand(-1, 4).contiguous()
    index = mdn_sample(params.expand(draws, -1), float(temperature), even, torch.zeros(draws, 4))
    share = nn.functional.one_hot(index.long(), 5).double().mean(0)
    close(share, vector["cases"][temperature]["probs"], 2e-5)


def test_frames_are_stored_as_they_are():
    """A deviation, pinned: the code's (1 - x) * 255 on bytes stores x - 1 modulo 256."""
    vector = VECTORS["frame_post"]
    resized, stored = (np.array(vector[name], np.uint8) for name in ("resized_uint8", "stored_uint8"))
    assert np.array_equal(resized - np.uint8(1), stored)
    frame = np.resize(resized, (64, 64, 3))
    assert np.array_equal(shrink(frame, 64), frame.transpose(2, 0, 1))
