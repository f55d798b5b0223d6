"""The dependency rule and the house style hold, and a violation would be found."""

from pathlib import Path

import pytest

from rooms import problems

PACKAGE = Path(__file__).parent.parent / "src" / "oneiro"
FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_file_keeps_the_rules() -> None:
    assert len(FILES) > 20
    found = [line for path in FILES for line in problems(path.relative_to(PACKAGE), path.read_text())]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source", "words"),
    [
        ("tree.py", "from oneiro.nets.lstm import LSTM", "tree may not import nets"),
        ("nets/lstm.py", "import oneiro.worlds.vmc", "nets may not import worlds"),
        ("worlds/vmc.py", "from oneiro.data.store import EpisodeStore", "worlds may not import data"),
        ("worlds/vmc.py", "from oneiro import data", "worlds may not import data"),
        ("worlds/vmc.py", "from ..data import store", "worlds may not import data"),
        ("worlds/vmc.py", "from .. import data", "worlds may not import data"),
        (
            "behaviours/cem.py",
            "def f():\n    from oneiro.envs import toy",
            "cem.py:2: behaviours may not import envs",
        ),
        ("data/store.py", "from oneiro.training.files import write", "data may not import training"),
        ("training/run.py", "from oneiro.evaluation.stats import iqm", "training may not import evaluation"),
        ("recipes/vmc.py", "from oneiro.cli.main import main", "recipes may not import cli"),
        ("testing/suite.py", "from oneiro.cli.main import main", "testing may not import cli"),
        ("attic/old.py", "", "the room 'attic' has no place"),
        ("worlds/vmc.py", "import oneiro.attic", "imports oneiro.attic, which is in no room"),
        ("nets/utils.py", "", "'utils' says nothing"),
        ("worlds/base.py", "", "'base' says nothing"),
        ("worlds/long.py", "x = 1\n" * 401, "401 lines"),
        ("training/fit.py", "isinstance(world, VMC)", "isinstance on a world"),
        ("training/fit.py", "if hasattr(agent.world, 'encode'): pass", "hasattr on a world"),
        ("agent.py", "isinstance(self.behaviour, OpenLoop)", "isinstance on a behaviour"),
    ],
)
def test_a_violation_is_found(path: str, source: str, words: str) -> None:
    (found,) = problems(Path(path), source)
    assert words in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("agent.py", "from oneiro import tree\nfrom oneiro.world import WorldModel"),
        (
            "worlds/vmc.py",
            "from oneiro.nets.lstm import LSTM\nfrom oneiro.worlds.other import x\nimport torch",
        ),
        ("worlds/vmc.py", "from .other import x\nfrom . import other"),
        ("testing/oracles.py", "from oneiro.envs.toy import Catch\nisinstance(world, WorldModel)"),
        ("cli/main.py", "from oneiro import __version__\nfrom oneiro.testing import check_world"),
        ("training/fit.py", "isinstance(total, Tensor)\nhasattr(config, 'x')"),
        ("__init__.py", "from oneiro.recipes import load"),
    ],
)
def test_what_is_allowed_passes(path: str, source: str) -> None:
    assert problems(Path(path), source) == []
