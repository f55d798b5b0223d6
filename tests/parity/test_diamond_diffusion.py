"""DIAMOND's diffusion core against vectors made by running the released code (float32, CPU)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from oneiro.nets.adagn_unet import AdaGroupNorm, num_groups
from oneiro.nets.ddpm import DDPM
from oneiro.nets.edm import EDMSampler, NoiseLaw, from_levels, karras_sigmas, precondition, quantise
from oneiro.nets.frame_denoiser import ActionEmbedding, FourierFeatures
from oneiro.spaces import ActionCodec
from oneiro.worlds.diamond_denoiser import Denoiser, DenoiserConfig, Draw

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((FOLDER / "diamond.json").read_text())
BITS = ActionCodec(51, (0.0,) * 51, (1.0,) * 51)


def close(found: Tensor, expected: Any, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(
        found.detach(), torch.as_tensor(expected, dtype=found.dtype), atol=tolerance, rtol=tolerance
    )


@pytest.mark.parametrize("offset", [0.0, 0.1, 0.3])
def test_preconditioners(offset: float) -> None:
    expected = VECTORS[f"preconditioners_offset_{offset}"]
    assert expected["sigma_offset_noise"] == offset
    scales = precondition(torch.tensor(expected["sigma"]), expected["sigma_data"], offset)
    for name in ("c_in", "c_out", "c_skip", "c_noise"):
        close(getattr(scales, name), expected[name], 2e-6)


@pytest.mark.parametrize("case", VECTORS["sigma_schedule"], ids=lambda c: str(c["num_steps"]))
def test_sigma_schedule(case: dict) -> None:
    sigmas = karras_sigmas(case["num_steps"], case["sigma_min"], case["sigma_max"], float(case["rho"]))
    close(torch.tensor(sigmas), case["sigmas"])


@pytest.mark.parametrize("case", VECTORS["training_sigma"], ids=lambda c: str(c["loc"]))
def test_noise_law(case: dict) -> None:
    law = NoiseLaw(
        mean=case["loc"], std=case["scale"], smallest=case["clip"][0], largest=float(case["clip"][1])
    )
    close(law.sigma(torch.tensor(case["z"])), case["sigma"], 2e-6)


def test_quantiser() -> None:
    case = VECTORS["output_quantiser"]
    levels = quantise(torch.tensor(case["pre"]), "truncate")
    assert levels.tolist() == case["level_0_255"]
    close(from_levels(levels), case["post"])


def test_a_byte_round_trip_loses_what_it_does_in_the_code() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    lost = levels[quantise(from_levels(levels), "truncate") != levels]
    assert lost.tolist() == VECTORS["byte_round_trip"]["levels_that_lose_one"]
    assert torch.equal(quantise(from_levels(levels), "round"), levels)


def test_fourier_features() -> None:
    case = VECTORS["fourier_features"]
    features = FourierFeatures(2 * len(case["weight"]))
    features.weight.copy_(torch.tensor(case["weight"]))
    close(features(torch.tensor(case["input"])), case["output"], 5e-6)


def test_ada_group_norm() -> None:
    case = VECTORS["ada_group_norm"]
    x = torch.tensor(case["x"])
    norm = AdaGroupNorm(x.shape[1], len(case["cond"][0]))
    norm.linear.load_state_dict({k: torch.tensor(case[k]) for k in ("weight", "bias")})
    close(norm(x, norm.linear(torch.tensor(case["cond"]))), case["y"], 5e-6)
    assert norm.groups == case["groups"]
    for channels, groups in VECTORS["num_groups_by_channels"].items():
        assert num_groups(int(channels)) == groups


@pytest.mark.parametrize("case", VECTORS["sampler"]["runs"], ids=lambda c: str(c["cfg"]))
def test_sampler(case: dict) -> None:
    names = {
        "num_steps_denoising": "steps",
        "s_churn": "churn",
        "s_tmin": "churn_min",
        "s_tmax": "churn_max",
        "s_noise": "churn_noise",
    }
    sampler = EDMSampler(**{names.get(k, k): v for k, v in case["cfg"].items()})
    obs, x = (torch.tensor(VECTORS["sampler"][k]) for k in ("obs", "x_init"))
    churn = torch.tensor(VECTORS["sampler"]["churn_eps_every_step"])
    told = [s[0] if isinstance(s, list) else s for s in case["sigma_passed_to_denoiser"]]

    def denoise(x: Tensor, k: int) -> Tensor:
        return torch.tanh(0.3 * x) / (1 + told[k]) + 0.1 * obs

    close(torch.tensor(sampler.sigmas), case["sigmas"])
    close(torch.tensor(sampler.told), told)
    walked = list(sampler.walk(denoise, x, lambda x: churn))
    close(torch.stack(walked), case["trajectory"], 5e-6)


def test_the_samplers_of_edm_differ_where_they_should() -> None:
    seen: list[Tensor] = []

    def denoise(x: Tensor, k: int) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    EDMSampler(steps=1, start="sigma_max").sample(denoise, torch.ones(1))
    assert seen[0].item() == 5.0
    churned = EDMSampler(steps=2, churn=1.0, churned="sigma_hat")
    assert churned.told[0] == pytest.approx(5 * (2**0.5))


def test_tiny_denoiser_loss() -> None:
    """Both self-fed steps: F of each, and the loss, from the released state dict and the recorded draws."""
    case = VECTORS["tiny_denoiser_npz"]
    data, config = dict(np.load(FOLDER / case["file"])), official_config(case["config"])
    colours, actions = case["config"]["img_channels"], case["config"]["num_actions"]
    denoiser = Denoiser(config, colours, ActionCodec(actions), dtype="float32")
    weights = [torch.tensor(x) for name, x in data.items() if name.startswith("sd/")]
    own = denoiser.state_dict()
    assert [w.shape for w in weights] == [x.shape for x in own.values()]  # the same order
    denoiser.load_state_dict(dict(zip(own, weights, strict=True)))
    draws = [
        Draw(*(torch.tensor(data[f"{name}{step}"]) for name in ("z", "off", "eps"))) for step in range(2)
    ]
    waiting, answers = iter(draws), []
    denoiser.draw = lambda frame: next(waiting)  # type: ignore[method-assign]
    denoiser.net.register_forward_hook(lambda _, __, output: answers.append(output.detach()))
    action = torch.nn.functional.one_hot(torch.tensor(data["act"]), 4).float()
    arrived = torch.cat([torch.zeros_like(action[:, :1]), action[:, :-1]], 1)  # row t: what led to frame t
    everything = torch.ones(2, 4, dtype=torch.bool)  # the vector's padding is not grey, and the code reads it
    loss = denoiser.loss(from_levels(torch.tensor(data["obs"])), arrived, everything, ~everything)
    close(answers[0], data["F0"], 1e-5)
    close(answers[1], data["F1"], 1e-5)
    assert loss.item() == pytest.approx(case["loss"], rel=1e-5)


def official_config(values: dict) -> DenoiserConfig:
    """Ours, from the names of the released code."""
    (blocks,) = set(values["depths"])
    return DenoiserConfig(
        context=values["num_steps_conditioning"],
        channels=tuple(values["channels"]),
        blocks=blocks,
        attention=tuple(stage for stage, attends in enumerate(values["attn_depths"]) if attends),
        cond_dim=values["cond_channels"],
        sigma_data=values["sigma_data"],
        offset_noise=values["sigma_offset_noise"],
        law=NoiseLaw(mean=values["P_mean"], std=values["P_std"]),
    )


def test_multi_hot_actions_are_sums_of_rows() -> None:
    case = VECTORS["csgo_multi_hot_action_embedding"]
    embedding = ActionEmbedding(ActionCodec(4, (0.0,) * 4, (1.0,) * 4), 4)
    embedding.load_state_dict({"weight": torch.tensor(case["embedding_weight"])})
    close(embedding(torch.tensor(case["multi_hot (t=2)"]).float()).flatten(1), case["embedding"])


def test_no_action_counts_as_the_first() -> None:
    embedding = ActionEmbedding(ActionCodec(5, groups=(3, 2)), 4)
    none = embedding(torch.zeros(1, 5))
    close(none, (embedding.weight[0] + embedding.weight[3])[None].detach())


def test_the_noise_on_past_frames_is_told() -> None:
    case = VECTORS["csgo_conditioning"]
    scales = precondition(torch.tensor(case["sigma"]), offset=case["sigma_offset_noise"])
    close(scales.c_noise, case["c_noise"])
    close(torch.tensor(case["sigma_cond"]).log() / 4, case["c_noise_cond"])
    denoiser = Denoiser(
        DenoiserConfig(context=1, channels=(8,), blocks=1, cond_dim=8, tells_context_noise=True),
        3,
        None,
        dtype="float32",
    )
    told = torch.zeros(2)
    silent = denoiser.net.condition(told, None, None)
    spoken = denoiser.net.condition(told, None, torch.full((2,), case["c_noise_cond_when_none"][0]))
    assert all(torch.equal(a, b) for a, b in zip(silent, spoken, strict=True))
    assert not torch.equal(denoiser.net.condition(told, None, told + 1)[0], silent[0])


@pytest.mark.parametrize("actions", [4, 18])
def test_denoiser_count_on_atari(actions: int) -> None:
    with torch.device("meta"):
        denoiser = Denoiser(DenoiserConfig(), 3, ActionCodec(actions))
    expected = VECTORS["param_counts"][f"atari_{actions}_actions"]["denoiser"]
    assert sum(p.numel() for p in denoiser.parameters()) == expected


def test_ddpm_recovers_a_picture_from_exact_noise_predictions() -> None:
    """No vectors exist for this option: its maths is tested against what the true noise must lead to."""
    picture = torch.linspace(-1, 1, 12).reshape(1, 3, 2, 2)
    for steps in (1, 4, 10):
        ddpm = DDPM(steps=steps)
        levels = torch.tensor(ddpm.visited)
        kept = ddpm.kept(levels)

        def predict(z: Tensor, k: int, kept: Tensor = kept) -> Tensor:
            return (z - kept[k].sqrt() * picture) / (1 - kept[k]).sqrt()

        close(ddpm.sample(predict, torch.randn_like(picture)), picture, 2e-5)
    assert DDPM(steps=1).visited == [500]
    assert DDPM().told(torch.tensor([0, 999])).tolist() == pytest.approx([0.001, 1.0])
    noise = torch.randn(4, 1, 50, 50)
    noisy = DDPM().noisy(torch.zeros_like(noise), torch.tensor([0, 100, 500, 999]), noise)
    close(noisy.std((1, 2, 3)), (1 - DDPM().kept(torch.tensor([0, 100, 500, 999]))).sqrt(), 5e-2)
