"""Speeds that pages quote are those of the result files."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORKS = {"V": "vision update", "M": "memory update", "the encoder": "encoder", "dream steps": "dream"}


def speedups(name: str) -> dict[str, float]:
    """Median by the name of the work, from results/NAME.json."""
    records = json.loads((ROOT / "results" / f"{name}.json").read_text())["records"]
    return {r["name"]: r["speedup"]["median"] for r in records if "speedup" in r}


def passage(page: str, pattern: str) -> str:
    """The one place of a page that fits."""
    (found,) = re.findall(pattern, (ROOT / page).read_text(), re.DOTALL)
    return " ".join(found.split())


def agrees(quoted: str, measured: float) -> bool:
    """As far as the quoted figure goes."""
    digits = len(quoted.partition(".")[2])
    return abs(float(quoted) - measured) <= 0.5 * 10**-digits + 1e-9


@pytest.mark.parametrize(
    ("page", "pattern", "number"),
    [
        ("docs/speed.md", r"processor with bfloat16:(.*?)the plain loop", 4),
        ("docs/systems/vmc.md", r"\| speed, against a plain PyTorch loop \|(.*?)\[results/speed", 3),
    ],
)
def test_pages_quote_the_speeds_of_world_models(page: str, pattern: str, number: int) -> None:
    measured = speedups("speed")
    quoted = dict(re.findall(r"\b(V|M|the encoder|dream steps) ([\d.]+)x", passage(page, pattern)))
    assert len(quoted) == number
    wrong = {name: x for name, x in quoted.items() if not agrees(x, measured[WORKS[name]])}
    assert wrong == {}, f"{page} is behind results/speed.json: {measured}"


def test_speeds_without_bfloat16() -> None:
    quoted = re.findall(r"([\d.]+)x", passage("docs/speed.md", r"On one without,(.*?x)\.\n"))
    measured = speedups("speed_float32")
    assert len(quoted) == len(WORKS)
    for x, work in zip(quoted, WORKS.values(), strict=True):
        assert agrees(x, measured[work]), (work, measured[work])


def test_the_table_is_made_of_the_data() -> None:
    table = (ROOT / "results" / "speed.md").read_text().split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \|.*\| \*\*([\d.]+)x\*\* ", table, re.MULTILINE)
    measured = speedups("speed")
    assert {work for work, _ in rows} == set(measured)
    assert all(agrees(x, measured[work]) for work, x in rows)
