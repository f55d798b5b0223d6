"""Classes named on the command line are found, built, or the error says which half of the name is wrong."""

from pathlib import Path
from typing import Literal

import pytest
from small_world import BOX, SmallActor, SmallConfig, SmallWorld

from oneiro.errors import OneiroError
from oneiro.testing import build_behaviour, build_world, check_target, check_world, load_target, require

MINE = '''
from dataclasses import dataclass
import torch
from oneiro import Losses, Prediction, Spaces, WorldModel


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """Deterministic latent dynamics."""

    z_dim: int = 3

    def build(self, spaces: Spaces) -> "Tiny":
        return Tiny(self, spaces)


class Tiny(WorldModel):
    def __init__(self, config: TinyConfig, spaces: Spaces) -> None:
        super().__init__()
        self.spaces, self.feature_dim = spaces, config.z_dim
        self.encoder = torch.nn.Linear(3 * 8 * 8, config.z_dim)
        self.dynamics = torch.nn.Linear(config.z_dim + spaces.action.dim, config.z_dim)
        self.reward = torch.nn.Linear(config.z_dim, 1)

    def start(self, n):
        return {"z": torch.zeros(n, self.feature_dim, device=self.device)}

    def observe(self, state, row):
        return {"z": self.encode(row)}

    def encode(self, row):
        return self.encoder(row.obs["image"].float().div(255).flatten(-3))

    def step(self, state, action, temperature=1.0):
        z = self.dynamics(torch.cat([state["z"], action], -1))
        return Prediction({"z": z}, self.reward(z)[..., 0])

    def feature(self, state):
        return state["z"]

    def losses(self, batch, parts, before=None):
        z = self.encode(batch)
        ahead = self.dynamics(torch.cat([z[:, :-1], batch.action[:, 1:]], -1))
        inside = batch.mask[:, 1:] & batch.mask[:, :-1] & ~batch.is_first[:, 1:]
        error = (ahead - z[:, 1:].detach()).pow(2).mean(-1)
        error = error + (self.reward(ahead)[..., 0] - batch.reward[:, 1:]).pow(2)
        return Losses({"all": (error * inside).sum() / inside.sum()}, trace={"z": z})


class Outer:
    Inner = TinyConfig


class Needy(Tiny):
    def __init__(self, config, spaces):
        super().__init__(TinyConfig(), spaces)


@dataclass
class NoDefault:
    width: int


def build_nothing(spaces):
    return None
'''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "my_file.py"
    path.write_text(MINE)
    return path


@pytest.mark.parametrize("name", ["TinyConfig", "Tiny", "Outer.Inner"])
def test_the_example_of_the_documentation_conforms(mine: Path, name: str) -> None:
    world = build_world(load_target(f"{mine}:{name}"), BOX)
    assert type(world).__name__ == "Tiny"
    require(check_world(world))


def test_a_name_in_a_package() -> None:
    assert load_target("small_world:SmallConfig") is SmallConfig
    assert isinstance(build_world(load_target("small_world:SmallWorld"), BOX), SmallWorld)
    assert isinstance(build_behaviour(load_target("small_world:SmallActor"), BOX, 12), SmallActor)
    config = load_target("oneiro.behaviours.linear:LinearConfig")
    assert build_behaviour(config, BOX, 12).parts == ()


def test_worlds_and_behaviours_pass_through() -> None:
    world = SmallConfig().build(BOX)
    assert build_world(world, BOX) is world
    actor = SmallActor(BOX, 12)
    assert build_behaviour(actor, BOX, 12) is actor


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("Tiny", "names nothing; write 'file.py:Name'"),
        ("missing.py:Tiny", "there is no file missing.py"),
        ("no_such_module_anywhere:Tiny", "there is no module 'no_such_module_anywhere'"),
        ("oneiro.types:TimeStap", "Did you mean 'TimeStep'?"),
        ("small_world:", "names nothing"),
    ],
)
def test_what_is_wrong_with_a_name(target: str, words: str) -> None:
    with pytest.raises(OneiroError) as error:
        load_target(target)
    assert words in str(error.value)


def test_a_file_that_breaks_on_import(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import nothing_like_this\n")
    with pytest.raises(OneiroError, match=r"bad\.py cannot be imported: ModuleNotFoundError"):
        load_target(f"{path}:World")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Needy", "does not say which class its config is"),
        ("NoDefault", "has no default for width"),
        ("build_nothing", "neither a WorldModel nor a config"),
    ],
)
def test_what_cannot_be_built(mine: Path, name: str, words: str) -> None:
    with pytest.raises(OneiroError) as error:
        build_world(load_target(f"{mine}:{name}"), BOX)
    assert words in str(error.value)


def test_a_world_is_checked_by_name(tmp_path: Path) -> None:
    path = tmp_path / "big.py"
    path.write_text(MINE.replace("3 * 8 * 8", "3 * 64 * 64"))
    checks = check_target(f"{path}:TinyConfig")
    require(checks)
    assert "absorb equals a loop of observe" in [check.name for check in checks]


@pytest.mark.parametrize("toy", ["dodge", "catch"])
def test_a_behaviour_is_checked_by_name(toy: Literal["dodge", "catch"]) -> None:
    checks = check_target("oneiro.behaviours.linear:LinearConfig", toy)
    require(checks)
    assert "greedy acting is deterministic" in [check.name for check in checks]
