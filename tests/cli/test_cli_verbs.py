"""Every verb explains itself; whatever is not known is answered with what is; plans need no extra."""

import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from calling import FAULTS, TOY, oneiro

from oneiro.cli.main import VERBS

COUNTS = {"world.vision": 4_446_915, "world.memory": 1_678_785, "behaviour": 1_088}


@pytest.fixture
def no_vizdoom(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "vizdoom" else find(name, *a)
    )
    monkeypatch.setitem(sys.modules, "vizdoom", None)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str):
    began = time.monotonic()
    answer = oneiro(verb, "--help")
    assert answer.code == 0
    assert re.search(rf"Example: oneiro {verb}\b", answer.out), answer.out
    assert time.monotonic() - began < 10


def test_the_list_of_verbs():
    for arguments in ((), ("--help",)):
        answer = oneiro(*arguments)
        assert answer.code == 0
        assert all(verb in answer.out for verb in VERBS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trian",), ["unknown verb 'trian'", "'train'"]),
        (("train",), ["which recipe?"]),
        (("train", "vmc-takecovr"), ["unknown recipe", "'vmc-takecover'"]),
        (("show", "vmc-takecover", "--size", "dmo"), ["no size 'dmo'", "'demo'"]),
        (("show", "vmc-takecover", "--size"), ["--size needs a value"]),
        (("train", "vmc-takecover", "--schedule.evolv.generations", "3"), ["--schedule.evolve.generations"]),
        (("train", "vmc-takecover", "--world.z-dim", "many"), ["many", "--world.z-dim"]),
        (("evaluate", "x", "--epsodes", "3"), ["--episodes"]),
        (("evaluate", "x", "--episodes", "1"), ["at least 2"]),
        (("dream", "x", "--horizon", "0"), ["at least 1"]),
        (("list", "--jsn"), ["--json"]),
        (("check", "vmc-takecver"), ["'vmc-takecover'"]),
        (("check", f"{FAULTS}:Brokn"), ["'Broken'"]),
        (("train", "nowhere.py:recipe"), ["no file nowhere.py"]),
        (("train", f"{FAULTS}:unsized"), ["which sizes", "Literal"]),
        (("train", f"{FAULTS}:not_a_recipe"), ["returned a int"]),
        (("collect", "--env", "takecove", "--out", "x"), ["'takecover'"]),
        (("collect", "--env", "toy:dogde", "--out", "x"), ["'toy:dodge'"]),
        (("collect", "--env", "CartPole", "--out", "x"), ["'CartPole-v1'"]),
        (("collect", "--env", "toy:dodge", "--env.nmu", "3", "--out", "x"), ["--env.num"]),
        (("collect", "--out", "x"), ["one of --env"]),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert oneiro(*arguments).is_error(*words)
    assert not list(tmp_path.iterdir())  # and nothing is left behind


def test_list_and_switches():
    known = oneiro("list", "--json").json
    assert known["vmc-takecover"]["sizes"][0] == "paper"
    assert oneiro("list", "--json", "True").json == known == oneiro("list", "--json=True").json
    table = oneiro("list", "--json", "False").out
    assert "vmc-carracing" in table
    assert "[z, h]" in table  # not taken for markup


@pytest.mark.usefixtures("no_vizdoom")
def test_show_has_the_published_counts_without_the_extra():
    plan = oneiro("show", "vmc-takecover", "--json", "--no-time").json
    assert {name: plan["parameters"][name] for name in COUNTS} == COUNTS
    assert plan["size"] == "paper"
    smaller = oneiro("show", "vmc-takecover", "--world.z-dim", "16", "--json", "--time", "False").json
    assert smaller["parameters"]["world.vision"] < COUNTS["world.vision"]
    assert "4,446,915" in oneiro("show", "vmc-takecover", "--no-time").out


@pytest.mark.usefixtures("no_vizdoom")
def test_a_missing_extra_is_named_with_the_command_that_installs_it(tmp_path: Path):
    answer = oneiro("train", "vmc-takecover", "--size", "smoke", "--run", tmp_path / "run")
    assert answer.is_error("pip install 'oneiro[doom]'")
    assert oneiro("collect", "--env", "takecover", "--out", tmp_path / "x").is_error("oneiro[doom]")
    assert not (tmp_path / "x").exists()


def test_train_speaks_within_ten_seconds_and_names_the_device(tmp_path: Path):
    command = [sys.executable, "-m", "oneiro.cli", "train", TOY, "--run", str(tmp_path / "run")]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        first, second = process.stderr.readline(), process.stderr.readline()
        assert time.monotonic() - began < 10
        process.terminate()
        process.communicate(timeout=60)
    assert first.startswith("vmc-dodge (tiny) in ")
    assert second.startswith("device: ")


def test_check_of_a_class_and_of_a_recipe():
    checks = oneiro("check", TOY, "--json").json
    (found,) = checks.values()
    assert len(found) > 30
    assert all(check["passed"] for check in found)
    table = oneiro("check", f"{Path(__file__).parents[1] / 'contract' / 'small_world.py'}:SmallConfig")
    assert table.code == 0, table.out
    assert re.search(r"SmallConfig: .*\d+ passed", table.out)
