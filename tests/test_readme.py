"""The README keeps up: every file has its line, every command parses, the Python in it runs."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from oneiro.cli.main import VERBS, main
from oneiro.recipes.saved import Player
from oneiro.training.progress import Progress
from oneiro.training.recipe import to_json, tweak
from oneiro.training.run import Run
from oneiro.training.run_folder import RunFolder
from oneiro.training.signals import Stop
from recipes.toy import vmc_dodge

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOY = f"{ROOT / 'tests' / 'recipes' / 'toy.py'}:vmc_dodge"


def blocks(text: str, language: str) -> list[str]:
    """Fenced code of one language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [code for name, code in fenced if name == language]


def commands() -> list[str]:
    """Lines of shell in README and documentation that begin with oneiro, without their comments."""
    found = set()
    for page in PAGES:
        lines = "\n".join(blocks(page.read_text(), "bash")).splitlines()
        found |= {line.split("  #")[0].strip() for line in lines if line.startswith("oneiro ")}
    return sorted(found)


def tree_paths() -> set[str]:
    """Files of the package as the README's tree lists them."""
    (tree,) = [block for block in blocks(README, "") if block.startswith("src/oneiro/\n")]
    found, room = set(), ""
    for line in tree.splitlines()[1:]:
        name, *text = line.split()
        if name.endswith("/"):
            room = name
            continue
        assert text, f"{name} has no words beside it"
        found.add(f"{room if line.startswith('    ') else ''}{name}")
    return found


def test_the_tree_names_every_file() -> None:
    package = ROOT / "src" / "oneiro"
    found = [*package.rglob("*.py"), *package.rglob("*.html")]
    files = {p.relative_to(package).as_posix() for p in found}
    empty = {f for f in files if f.endswith("/__init__.py") and len((package / f).read_text()) < 150}
    assert files - empty - tree_paths() == set()
    assert tree_paths() - files == set()


def test_every_extra_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (table,) = re.findall(r"\| extra \| for \|\n\|---\|---\|\n((?:\|.*\n)+)", README)
    named = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert named == set(project["optional-dependencies"])


def test_every_verb_is_explained() -> None:
    assert [verb for verb in VERBS if f"| `oneiro {verb}" not in README] == []


@pytest.mark.parametrize("command", commands())
def test_commands_parse(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    _, *words = shlex.split(command)
    assert main([*words, "--help"]) == 0, capsys.readouterr().err


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tweak(vmc_dodge(), {"schedule.vision.updates": 2, "schedule.memory.updates": 2})
    record = {"recipe": TOY, "size": "tiny", "values": to_json(recipe)}
    with RunFolder.open(tmp_path / "runs" / "demo", record, "test") as folder:
        Run(recipe, folder, Progress("test", "cpu", quiet=True), Stop()).train()
    monkeypatch.chdir(tmp_path)
    acting, dreaming = (
        code.replace('"runs/demo"', f'"runs/demo", recipe={TOY!r}') for code in blocks(README, "python")
    )
    names: dict = {}
    exec(acting, names)
    assert isinstance(names["player"], Player)
    assert names["score"] >= 1
    exec(dreaming, names)
    assert names["dreamed"].reward.shape == (10, 51)  # ten episodes were stored
