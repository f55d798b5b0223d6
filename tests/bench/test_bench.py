"""`oneiro bench` and `oneiro doctor`: what they count, and that the plain form is the same model."""

import json

import pytest
import torch

from oneiro import runtime
from oneiro.bench import bench, naive, table
from oneiro.bench.rival import Shapes
from oneiro.doctor import examine
from oneiro.nets.conv_vae import ConvVAE
from oneiro.recipes import find

PAPER = Shapes(z_dim=64, channels=(32, 64, 128, 256), hidden_dim=512, num_mixtures=5, action_dim=1, states=2)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_plain_form_is_the_same_model():
    assert count(naive.Vision(64, [32, 64, 128, 256])) == count(ConvVAE(64)) == 4_446_915
    assert count(naive.Memory(64, 1, 512, 5)) == 1_678_785 + 4 * 512  # nn.LSTM has a second bias


def test_flop_of_the_published_shapes():
    flop = PAPER.flop()
    assert flop["vision"] / 1e9 == pytest.approx(23.0, rel=0.02)
    assert flop["memory"] / 1e9 == pytest.approx(454, rel=0.11)  # the published count includes 500 steps
    assert flop["dream"] / PAPER.rows / 1e9 == pytest.approx(0.0030, rel=0.15)


@pytest.fixture
def _restored_levers():
    yield
    torch.set_float32_matmul_precision("highest")
    runtime._report = None


@pytest.mark.usefixtures("_restored_levers")
def test_bench_against_naive():
    recipe = find("vmc-takecover").build("smoke")
    result = bench(recipe, against=True, env=False, seconds=0.01, rounds=1)
    named = {record["name"]: record for record in json.loads(json.dumps(result))["records"]}
    assert {"vision update", "memory update", "encoder", "dream"} <= set(named)
    for name in ("vision update", "memory update", "encoder", "dream"):
        record = named[name]
        assert record["min"] <= record["median"] <= record["max"]
        assert record["naive"]["median"] > 0
        expected = record["median"] / record["naive"]["median"]
        assert record["speedup"]["median"] == pytest.approx(expected, rel=0.01)
        assert 0 < record["share_of_peak"] < 2
    assert "plain PyTorch" in table(result)


def test_doctor_names_what_is_missing_and_how_to_get_it(monkeypatch):
    import oneiro.doctor as doctor

    installed = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "vizdoom" else installed(name))
    facts = examine(peak=False)
    json.dumps(facts)
    assert "pip install 'oneiro[doom]'" in facts["extras"]["doom"]
    assert facts["packages"]["torch"] == torch.__version__
    monkeypatch.setattr("oneiro.envs.libraries._loads", lambda file: False)
    assert "libqt5core5a" in examine(peak=False)["libraries"]["Qt5"]
