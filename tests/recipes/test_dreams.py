"""The dream of a run folder as an environment: gymnasium.make, vectors, where dreams begin, films."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import oneiro
from oneiro.agent import Starts
from oneiro.data.store import EpisodeStore
from oneiro.envs.dream import DreamEnv
from oneiro.errors import OneiroError
from oneiro.recipes.dreams import dream_env, windows
from oneiro.recipes.saved import open_run
from oneiro.training.progress import Progress
from oneiro.training.recipe import to_json, tweak
from oneiro.training.run import Run
from oneiro.training.run_folder import RunFolder
from oneiro.training.signals import Stop
from recipes.toy import vmc_dodge

TOY = f"{Path(__file__).parent / 'toy.py'}:vmc_dodge"
INFINITE = "ignore:.*A Box observation space (minimum|maximum) value is -?infinity"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """V-M-C hardly trained on a toy."""
    path = tmp_path_factory.mktemp("runs") / "demo"
    few = {"vision.updates": 2, "memory.updates": 2, "evolve.generations": 0, "evaluate.episodes": 1}
    changes = {f"schedule.{name}": value for name, value in few.items()} | {"checkpoint.minutes": 10.0}
    recipe = tweak(vmc_dodge(), changes)
    with RunFolder.open(path, {"recipe": TOY, "size": "tiny", "values": to_json(recipe)}, "test") as folder:
        Run(recipe, folder, Progress("test", "cpu", quiet=True), Stop()).train()
    return path


@pytest.mark.filterwarnings(INFINITE)
@pytest.mark.parametrize("sees", ["image", "feature"])
def test_gymnasium_makes_and_checks_it(run: Path, sees: str) -> None:
    env = gymnasium.make("oneiro/Dream-v0", run=run, recipe=TOY, sees=sees, horizon=30)
    check_env(env.unwrapped)
    obs, _ = env.reset(seed=3)
    steps, total, over = 0, 0.0, False
    while not over:
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        steps, total, over = steps + 1, total + float(reward), terminated or truncated
        assert 0 <= info["cont"] <= 1
    assert obs.shape == ((3, 64, 64) if sees == "image" else (24,))
    assert total == steps <= 30
    env.close()


def test_gymnasium_makes_a_vector_of_it(run: Path) -> None:
    env = gymnasium.make_vec("oneiro/Dream-v0", num_envs=5, run=run, recipe=TOY, autoreset_mode="SameStep")
    assert isinstance(env, DreamEnv)
    assert env.reset(seed=0)[0].shape == (5, 3, 64, 64)
    assert env.step(env.action_space.sample())[1].tolist() == [1.0] * 5


def test_a_dream_is_filmed(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    env: Any = gymnasium.make("oneiro/Dream-v0", run=run, recipe=TOY, horizon=5, render_mode="rgb_array")
    env = gymnasium.wrappers.RecordVideo(env, str(tmp_path / "films"), disable_logger=True)
    env.reset(seed=0)
    while not any(env.step(env.action_space.sample())[2:4]):
        pass
    env.close()
    (film,) = tmp_path.glob("films/*.mp4")
    assert film.stat().st_size > 1000


def test_dreams_begin_where_episodes_were(run: Path) -> None:
    """V-M-C keeps z of the frame: each first observation is that of a stored first row."""
    trained = open_run(run, TOY)
    env = dream_env(trained, 20, sees="feature", count=4, seed=1)
    env.reset(seed=0)
    mus = env.carry().state["mu"].numpy()
    assert len(np.unique(mus, axis=0)) == 4
    stored = {tuple(trained.store.read(int(id), 0, 1).memo["mu"][0].tolist()) for id in trained.store.ids}
    assert {tuple(mu.tolist()) for mu in mus} <= stored
    deep = dream_env(trained, 20, sees="feature", context=3, anywhere=True)
    deep.reset(seed=0)
    assert len(np.unique(deep.carry().state["mu"].numpy(), axis=0)) > 4
    assert (deep.carry().state["h"] != 0).any()


def test_windows_are_inside_episodes(run: Path) -> None:
    store = open_run(run, TOY).store
    rows = windows(store, Starts(context=4, count=200), 0, "cpu")
    assert rows.is_first.shape == (200, 4)
    assert rows.mask.all()
    assert not rows.is_first[:, 1:].any()
    assert not rows.terminated.any()
    assert 0 < rows.is_first[:, 0].sum() < 200


def test_an_empty_replay_is_refused_in_words(run: Path, tmp_path: Path) -> None:
    with pytest.raises(OneiroError, match="no dream can begin"):
        windows(EpisodeStore(tmp_path / "replay", mode="a"), Starts(), 0, "cpu")
    with pytest.raises(OneiroError, match="no dream can begin"):
        dream_env(run, 2, recipe=TOY, context=500)
    with pytest.raises(ValueError, match="horizon"):
        dream_env(run, 2, recipe=TOY, horizon=0)
    with pytest.raises(OneiroError, match="nothing"):
        gymnasium.make("oneiro/Dream-v0", run=tmp_path / "nothing")


def test_the_ten_lines_of_the_documentation_run(run: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "dreams.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    small = {
        "300_000": "16",
        "num_envs=64": "num_envs=2",
        "n_steps=128, batch_size=1024": "n_steps=8, batch_size=8",
    }
    for old, new in {**small, '"runs/demo",': f'"{run}", recipe={TOY!r},'}.items():
        assert old in code
        code = code.replace(old, new)
    names: dict[str, Any] = {}
    exec(code, names)
    env = names["player"].env()
    obs, _ = env.reset(seed=0)
    assert env.action_space.contains(names["player"].act(obs))


def test_a_name_is_all_that_is_registered() -> None:
    assert oneiro.__version__
    spec = gymnasium.spec("oneiro/Dream-v0")
    assert spec.entry_point == "oneiro.recipes.dreams:single_dream"
