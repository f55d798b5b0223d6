"""The example of a world of one's own in the documentation keeps the contract, and its recipe runs."""

from pathlib import Path

from oneiro.evaluation.stage import load_scores
from oneiro.recipes import find
from oneiro.testing import check_target, require
from oneiro.training.fit import parameter_counts
from oneiro.training.progress import Progress
from oneiro.training.recipe import to_json, tweak
from oneiro.training.run import Run
from oneiro.training.run_folder import RunFolder
from oneiro.training.signals import Stop

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "tiny_world.py"
SMALL = {
    "schedule.collect.episodes": 12,
    "schedule.fit.updates": 3,
    "schedule.fit.batch.size": 4,
    "schedule.evolve.generations": 2,
    "schedule.evolve.episodes": 2,
    "schedule.evolve.horizon": 8,
    "schedule.evaluate.episodes": 4,
    "log.tensorboard": False,
    "data.ram": 0.05,
}


def test_the_tiny_world_keeps_the_contract() -> None:
    checks = check_target(f"{EXAMPLE}:TinyConfig")
    require(checks)
    assert "streams join" in [check.name for check in checks if check.outcome == "passed"]


def test_the_recipe_of_the_tiny_world_runs(tmp_path: Path) -> None:
    recipe = tweak(find(f"{EXAMPLE}:tiny_dodge").build(), SMALL)
    with RunFolder.open(tmp_path, {"values": to_json(recipe)}, "test") as folder:
        run = Run(recipe, folder, Progress("test", "cpu", tmp_path, quiet=True), Stop())
        run.train()
    assert set(load_scores(tmp_path)) == {"random", "dream", "real"}
    assert parameter_counts(run.agent)["behaviour"] == run.agent.world.feature_dim
