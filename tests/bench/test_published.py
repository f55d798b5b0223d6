"""What `oneiro bench` shows of released code, and how long it says that an Atari-100k run takes."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from oneiro.bench import bench, diamond, dreamer, published, table
from oneiro.envs.crafter import CrafterConfig
from oneiro.recipes import find
from oneiro.spaces import ActionCodec, Spaces
from oneiro.training.run import build_agent

PICTURE = Spaces(obs={"image": (3, 64, 64)}, action=ActionCodec(6))
DREAMER = {"update": 1, "imagine": 1024 * 15, "act 1": 1, "act 16": 16}
DIAMOND = {"denoiser update, one frame": 1, "reward update": 1, "behaviour update": 1, "dream": 32, "play": 1}


def shown(recipe: Any, spaces: Spaces = PICTURE) -> dict[str, float]:
    """Median rate of the released code by work, where there is one."""
    with torch.device("meta"):
        agent = build_agent(recipe, spaces)
    if diamond.fits(recipe):
        plain, works = diamond.rival(recipe, agent, recipe.schedule.epochs), DIAMOND
    else:
        plain, works = dreamer.rival(recipe, agent, recipe.schedule.online), DREAMER
    found = {name: published.rates(plain, name, amount) for name, amount in works.items()}
    return {name: rate["median"] for name, rate in found.items() if rate}


@pytest.mark.parametrize(
    ("size", "rates"),
    [
        ("1m", {"update": 1 / 3.60, "imagine": 82_000, "act 1": 691, "act 16": 1757}),
        ("12m", {"update": 1 / 13.9, "imagine": 12_000, "act 1": 356, "act 16": 777}),
        ("25m", {}),
        ("cpu", {}),
    ],
)
def test_the_released_dreamer_at_the_sizes_that_were_measured(size: str, rates: dict[str, float]) -> None:
    assert shown(find("dreamerv3-atari100k").build(size)) == pytest.approx(rates, rel=0.01)


def test_the_released_diamond() -> None:
    rates = {"denoiser update, one frame": 1 / 4.39, "reward update": 1 / 2.45, "behaviour update": 1 / 4.50}
    rates |= {"dream": 8.8, "play": 11.8}
    assert shown(find("diamond-atari").build()) == pytest.approx(rates, rel=0.01)
    assert shown(find("diamond-atari").build("cpu"), Spaces({"image": (3, 32, 32)}, ActionCodec(4))) == {}


def test_nothing_of_other_shapes() -> None:
    recipe = find("dreamerv3-minigrid").build("1m")
    wide = Spaces(obs={"image": (3, 96, 96)}, action=ActionCodec(6))
    assert shown(recipe, wide) == {}
    assert shown(recipe, Spaces({"image": (3, 64, 64)}, ActionCodec.of(_box()))) == {}
    online = recipe.schedule.online
    short = replace(
        recipe,
        schedule=replace(recipe.schedule, online=replace(online, batch=replace(online.batch, length=32))),
    )
    assert set(shown(short)) == set(DREAMER) - {"update"}
    recipe = find("diamond-atari").build()
    sampler = replace(recipe.world.denoiser.sampler, steps=5)
    finer = replace(
        recipe, world=replace(recipe.world, denoiser=replace(recipe.world.denoiser, sampler=sampler))
    )
    assert shown(finer) == {}
    assert published.rates(None, "update", 1) is None


def _box() -> Any:
    from gymnasium.spaces import Box

    return Box(-1, 1, (6,))


def _records(*rates: float, elsewhere: bool = False) -> list[dict[str, Any]]:
    found = []
    for name, rate in zip(("update", "act 1"), rates, strict=True):
        record: dict[str, Any] = {"name": name, "median": rate, "min": rate / 2, "max": 2 * rate}
        if elsewhere:
            record["published"] = {
                "median": rate / 4,
                "min": rate / 8,
                "max": rate / 2,
                "code": "x",
                "measured": "y",
            }
        found.append(record)
    return found


def test_hours_of_an_atari_100k_run() -> None:
    recipe = find("dreamerv3-atari100k").build("1m")
    online = recipe.schedule.online
    (run,) = dreamer.whole_run(recipe, online, _records(0.5, 100, elsewhere=True))
    assert run["name"] == "Atari-100k run"
    assert run["shape"] == "27,501 updates, 110,000 steps"  # 110,000 x 256 / 1024, and the first
    assert run["median"] == pytest.approx((27_501 / 0.5 + 110_000 / 100) / 3600)
    assert (run["min"], run["max"]) == pytest.approx((run["median"] / 2, run["median"] * 2))
    assert run["published"]["median"] == pytest.approx(4 * run["median"])
    assert "published" not in dreamer.whole_run(recipe, online, _records(0.5, 100))[0]
    assert dreamer.whole_run(recipe, online, _records(0.5, 100)[:1]) == []
    other = replace(recipe, env=CrafterConfig(num=1))
    assert dreamer.whole_run(other, online, _records(0.5, 100)) == []
    (run,) = dreamer.whole_run(
        recipe, find("dreamerv3-atari100k").build("cpu").schedule.online, _records(1, 1)
    )
    assert run["name"] == "shortened run"


def test_both_are_in_the_table_and_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ale_py")
    monkeypatch.setattr(published, "RELEASED", (_smallest(),))
    recipe = find("dreamerv3-atari100k").build("smoke")
    result = bench(recipe, env=False, seconds=0.01, rounds=1)
    named = {record["name"]: record for record in json.loads(json.dumps(result))["records"]}
    assert named["update"]["published"]["median"] == 0.25
    assert named["update"]["published"]["code"] == "somebody/something"
    assert "published" not in named["dream"]
    assert named["shortened run"]["published"]["median"] > 0
    text = table(result)
    head = next(line for line in text.splitlines() if line.startswith("what"))
    assert head.split()[2:6] == ["rate", "range", "unit", "published"]
    (line,) = (line for line in text.splitlines() if line.startswith("update"))
    assert line[: head.index("published") + len("published")].endswith(" 0.25")
    assert "published: somebody/something, measured elsewhere, " in text
    assert "shortened run: the schedule's updates" in text
    monkeypatch.setattr(published, "RELEASED", ())
    assert "published" not in table(bench(recipe, env=False, seconds=0.01, rounds=1, only=("act 1",)))


def _smallest() -> published.Released:
    """Of the size smoke."""
    return published.Released(
        code="somebody/something",
        script="naive_dreamer.py",
        shapes={"units": 16, "deter": 64},
        seconds={"update": (4.0, 2.0, 8.0), "act 1": (0.1, 0.1, 0.1)},
        of_work={},
    )
