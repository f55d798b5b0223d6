"""`oneiro bench` and `oneiro doctor`: what they count, and that the plain form is the same model."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from gymnasium.spaces import Discrete

from oneiro import runtime
from oneiro.bench import bench, diamond, dreamer, naive, naive_diamond, naive_dreamer, table
from oneiro.bench.rival import Rival, Shapes
from oneiro.bench.work import Flop
from oneiro.bench.work import count as count_flop
from oneiro.doctor import examine
from oneiro.errors import OneiroError
from oneiro.nets.conv_vae import ConvVAE
from oneiro.nets.edm import from_levels, quantise
from oneiro.recipes import find
from oneiro.spaces import ActionCodec, Spaces
from oneiro.training import played
from oneiro.training.run import build_agent
from oneiro.worlds.dreamerv3_2023 import DreamerV3Of2023Config
from recipes.toy import vmc_dodge

PICTURE = Spaces(obs={"image": (3, 64, 64)}, action=ActionCodec(6))
PAPER = Shapes(z_dim=64, channels=(32, 64, 128, 256), hidden_dim=512, num_mixtures=5, action_dim=1, states=2)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_plain_form_is_the_same_model():
    assert count(naive.Vision(64, [32, 64, 128, 256])) == count(ConvVAE(64)) == 4_446_915
    assert count(naive.Memory(64, 1, 512, 5)) == 1_678_785 + 4 * 512  # nn.LSTM has a second bias


def test_flop_of_the_published_shapes():
    flop = PAPER.flop()
    assert flop["vision"].conv / 1e9 == pytest.approx(23.0, rel=0.02)
    assert flop["memory"].gemm / 1e9 == pytest.approx(454, rel=0.11)  # the published count includes 500 steps
    assert flop["dream"].gemm / PAPER.rows / 1e9 == pytest.approx(0.0030, rel=0.15)


def test_convolutions_are_held_against_the_peak_of_convolutions():
    peak = {"gemm_float32": 100.0, "conv_float32": 50.0}
    assert Flop(conv=50e9).seconds(peak, "float32") == 1
    assert Flop(gemm=50e9, conv=25e9).seconds(peak, "float32") == 1
    layer, dense = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(10, 10)
    found = count_flop(lambda: (layer(torch.randn(2, 3, 6, 6)).sum().backward(), dense(torch.randn(4, 10))))
    assert found.gemm == 2 * 4 * 10 * 10
    assert found.conv == 2 * 2 * (2 * 8 * 16 * 27)  # forward, and the gradient of the weights


@pytest.fixture(params=["naive.py", "naive_dreamer.py", "naive_diamond.py"])
def plain_works(request, atari):
    """The works of a plain form, with shapes."""
    if request.param == "naive.py":
        return naive.WORK, {**vars(PAPER), "channels": list(PAPER.channels), "rows": 64, "memory_length": 4}
    if request.param == "naive_diamond.py":
        one = {
            "denoiser_batch": [1, 6],
            "reward_batch": [1, 3],
            "behaviour_batch": 1,
            "horizon": 2,
            "rows": 1,
        }
        return naive_diamond.WORK, atari | one
    shapes = _dreamer_shapes(find("dreamerv3-minigrid").build("1m"), PICTURE)
    return naive_dreamer.WORK, shapes | {"size": 2, "length": 3, "horizon": 2, "rows": 4}


def test_the_plain_form_lies_on_the_device_that_it_is_told(plain_works, monkeypatch):
    works, shapes = plain_works
    for optimizer in (
        torch.optim.Adam,
        torch.optim.AdamW,
    ):  # in torch 2.11 it reads its step count, which has no value
        monkeypatch.setattr(optimizer, "step", lambda self: None)
    for work in works.values():
        with torch.device("meta"):  # a tensor left on the CPU would not go with the others
            work(shapes)()


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


@pytest.mark.usefixtures("_restored_levers")
def test_a_generation_in_the_environment(monkeypatch):
    monkeypatch.setattr(played, "_MANY", 2)
    monkeypatch.setattr(played, "_PATIENCE", 60.0)
    recipe = vmc_dodge()
    evolve = replace(recipe.schedule.evolve, where="env")
    recipe = replace(recipe, schedule=replace(recipe.schedule, evolve=evolve))
    records = bench(recipe, seconds=0.01, rounds=1)["records"]
    (found,) = (record for record in records if record["name"] == "generation")
    assert found["shape"] == "12 rollouts, as long as untrained ones"
    assert found["median"] > 0
    records = bench(recipe, env=False, seconds=0.01, rounds=1)["records"]
    (found,) = (record for record in records if record["name"] == "generation")
    assert "left out" in found["skipped"]


def test_doctor_names_what_is_missing_and_how_to_get_it(monkeypatch):
    import oneiro.doctor as doctor

    installed = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "vizdoom" else installed(name))
    facts = examine(peak=False)
    json.dumps(facts)
    assert "pip install 'oneiro[doom]'" in facts["extras"]["doom"]
    assert facts["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    monkeypatch.setattr("oneiro.envs.libraries._loads", lambda file: False)
    assert "libqt5core5a" in examine(peak=False)["libraries"]["Qt5"]


def test_the_plain_dreamer_is_the_same_model():
    recipe = find("dreamerv3-minigrid").build("1m")
    shapes = _dreamer_shapes(recipe, Spaces(obs={"image": (3, 64, 64)}, action=ActionCodec.of(Discrete(18))))
    plain = naive_dreamer.Dreamer(shapes)
    assert sum(p.numel() for p in plain.parameters() if p.requires_grad) == 688_004


def test_flop_of_the_plain_dreamer():
    recipe = find("dreamerv3-minigrid").build("1m")
    shapes = _dreamer_shapes(recipe, PICTURE)
    call = naive_dreamer.update(shapes | {"size": 1, "length": 8})
    assert count_flop(call).total / 8 * 1024 / 1e9 == pytest.approx(112, rel=0.07)


def _dreamer_shapes(recipe, spaces):
    agent = build_agent(recipe, spaces)
    found = dreamer.rival(recipe, agent, recipe.schedule.online)
    assert found is not None
    return found.shapes


@pytest.mark.usefixtures("_restored_levers")
def test_bench_of_dreamer_against_naive():
    recipe = find("dreamerv3-gym").build("smoke")
    result = bench(recipe, against=True, env=False, seconds=0.01, rounds=1)
    named = {record["name"]: record for record in json.loads(json.dumps(result))["records"]}
    assert set(named) == {"update", "dream", "imagine", "act 1", "act 16"}
    for record in named.values():
        expected = record["median"] / record["naive"]["median"]
        assert record["speedup"]["median"] == pytest.approx(expected, rel=0.01)
        assert 0 < record["share_of_peak"] < 2
    assert "plain PyTorch" in table(result)


@pytest.fixture(scope="module")
def atari() -> dict:
    """Shapes of the plain form of DIAMOND on Atari with four actions."""
    recipe = find("diamond-atari").build()
    with torch.device("meta"):
        agent = build_agent(recipe, Spaces({"image": (3, 64, 64)}, ActionCodec(4)))
    found = diamond.rival(recipe, agent, recipe.schedule.epochs)
    assert found is not None
    return found.shapes


def test_the_plain_diamond_is_the_same_model(atari):
    with torch.device("meta"):
        models = [
            kind(atari) for kind in (naive_diamond.Denoiser, naive_diamond.Judge, naive_diamond.ActorCritic)
        ]
    assert [count(model) for model in models] == [4_405_955, 5_900_864, 3_229_637]


def test_flop_of_the_plain_diamond(atari):
    """Counted by others: 18.2 GFLOP for an update on one denoised frame, 18.8 for a dreamed step."""
    update = naive_diamond.denoiser_update(atari | {"denoiser_batch": [1, 6]}, 5)
    assert count_flop(update).total / 1e9 == pytest.approx(18.2, rel=0.02)
    assert count_flop(naive_diamond.dream(atari, 1)).total / 1e9 == pytest.approx(18.8, rel=0.02)


@pytest.mark.usefixtures("_restored_levers")
def test_bench_of_diamond_against_naive():
    recipe = find("diamond-atari").build("smoke")
    result = bench(recipe, against=True, env=False, seconds=0.01, rounds=1)
    named = {record["name"]: record for record in json.loads(json.dumps(result))["records"]}
    assert list(named) == [
        "denoiser update",
        "denoiser update, one frame",
        "reward update",
        "behaviour update",
        "dream",
        "play",
    ]
    for record in named.values():
        expected = record["median"] / record["naive"]["median"]
        assert record["speedup"]["median"] == pytest.approx(expected, rel=0.01)
        assert record["share_of_peak"] > 0
    only = bench(recipe, env=False, seconds=0.01, rounds=1, only=("play",))["records"]
    assert [record["name"] for record in only] == ["play"]
    with pytest.raises(OneiroError, match="play"):
        bench(recipe, env=False, only=("plai",))


@pytest.mark.usefixtures("_restored_levers")
def test_bench_of_two_stages():
    recipe = find("diamond-video").build("smoke")
    result = bench(recipe, env=False, seconds=0.01, rounds=1)
    named = {record["name"]: record for record in json.loads(json.dumps(result))["records"]}
    assert list(named) == ["denoiser update", "upsampler update", "dream", "play"]
    assert all(record["median"] > 0 and record["gflops"] > 0 for record in named.values())
    assert "upsampler update" in table(result)
    with pytest.raises(OneiroError, match="leave out --against"):
        bench(recipe, against=True, env=False)


@pytest.mark.parametrize("rounding", ["truncate", "round"])
def test_the_plain_diamond_rounds_alike(atari, rounding):
    with torch.device("meta"):
        model = naive_diamond.Denoiser(atari | {"rounding": rounding})
    levels = torch.arange(256)
    sigma = torch.full((256,), 0.002)
    frame = from_levels(levels)[:, None, None, None] + 1.4 / 255  # 0.7 levels more
    _, c_out, c_skip, _ = model.scales(sigma)
    found = (frame - c_skip * frame) / c_out
    expected = quantise(frame, rounding)
    assert torch.equal(quantise(model.clean(frame, sigma, found), "round"), expected)


def test_there_is_a_plain_form_that_rounds():
    recipe = find("diamond-doom").build("smoke")
    with torch.device("meta"):
        agent = build_agent(recipe, Spaces({"image": (3, 24, 24)}, ActionCodec(4)))
    found = diamond.rival(recipe, agent, recipe.schedule.epochs)
    assert found is not None
    assert found.shapes["rounding"] == "round"


def test_no_plain_form_of_other_objectives():
    recipe = find("diamond-atari").build("smoke")
    denoiser = replace(recipe.world.denoiser, objective="ddpm")
    recipe = replace(recipe, world=replace(recipe.world, denoiser=denoiser))
    with pytest.raises(OneiroError, match="leave out --against"):
        bench(recipe, against=True, env=False)


def test_no_plain_form_of_the_2023_generation():
    recipe = find("dreamerv3-gym").build("smoke")
    recipe = replace(recipe, world=DreamerV3Of2023Config())
    with pytest.raises(OneiroError, match="leave out --against"):
        bench(recipe, against=True, env=False)


def test_a_rival_may_be_any_script_in_a_python_and_environment_of_its_own(tmp_path, monkeypatch):
    script = tmp_path / "peer.py"
    script.write_text(
        "import os, time\n"
        "def sleep(shapes):\n"
        "    assert os.environ['PEER_VARIABLE'] == shapes['expected'] and os.environ['OURS'] == 'kept'\n"
        "    return lambda: time.sleep(0.001)\n"
        "WORK = {'sleep': sleep}\n"
    )
    monkeypatch.setenv("OURS", "kept")
    own = {"python": sys.executable, "environment": {"PEER_VARIABLE": "7"}}
    with Rival(script, {"expected": "7"}, torch.device("cpu"), **own) as rival:
        times = rival.ask("sleep", 0.003)
    assert sum(times) >= 0.003
    assert all(0.001 <= t < 10 for t in times)
