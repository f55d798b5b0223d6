"""The stage with the smallest DreamerV3: rows, latents and what a resumed run finds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from online_world import OnlineSchedule
from test_online import StopAfter, check_resets, launch, rows_of

from oneiro import tree
from oneiro.behaviours.actor_critic import ActorCriticConfig
from oneiro.data.replayed import Replayed
from oneiro.envs.toy import ToyConfig
from oneiro.training import estimate, played
from oneiro.training.fit import Fit, Group
from oneiro.training.laprop import LaProp
from oneiro.training.log import LogConfig, read_metrics
from oneiro.training.needs import needs
from oneiro.training.online import Online
from oneiro.training.recipe import CheckpointConfig, DataConfig, Recipe, tweak
from oneiro.training.run import Stopped
from oneiro.worlds.dreamerv3 import DreamerV3Config


def dreamer(**values) -> Recipe:
    world = DreamerV3Config(size="1m", units=16, deter_dim=64, stoch=8, classes=4, depth=2)
    group = Group(address=("world", "behaviour"), optimizer=LaProp(lr=1e-3, warmup=10))
    online = Online(
        steps=120,
        fit=Fit(groups=(group,)),
        batch=Replayed(size=2, length=8),
        train_ratio=1.0,
        log_every=40,
    )
    recipe = Recipe(
        env=ToyConfig(id="catch", num=2),
        world=world,
        behaviour=ActorCriticConfig(units=16),
        schedule=OnlineSchedule(online=online),
        data=DataConfig(ram=0.05, capacity=100_000),
        checkpoint=CheckpointConfig(minutes=1e6),
        log=LogConfig(tensorboard=False),
    )
    return tweak(recipe, values)


def test_every_latent_follows_from_the_one_before(tmp_path: Path):
    """h of a row is a function of the latents and the row before, in every episode, played or written back.

    Only the row after an item that was written back follows from the z that was there before: one update of two items.
    """
    still = {"schedule.online.fit.groups.0.optimizer.lr": 1e-12, "schedule.online.train_ratio": 1e-9}
    run = launch(dreamer(**still), tmp_path / "run")
    world, off = run.agent.world.eval(), 0
    for rows, memo in rows_of(run.replay):
        before = world.recall({name: x[0, :-1] for name, x in memo.items()}, memo["deter"].shape[1] - 1)
        with torch.no_grad():
            state = world.observe(before, tree.map(lambda x: x[0, 1:], rows))
        error = (state["deter"] - memo["deter"][0, 1:].float()).abs().amax(-1)
        off += int((error > 2e-3).sum())
        assert memo["deter"].float().std() > 0.02
        assert (memo["stoch"] < world.config.num_classes).all()
    assert off <= 2


@pytest.mark.parametrize("looks", [45])
def test_a_stopped_run_goes_on(tmp_path: Path, looks: int):
    path = tmp_path / "run"
    with pytest.raises(Stopped):
        launch(dreamer(), path, StopAfter(looks))
    run = launch(dreamer(), path)
    check_resets(run.replay)
    lines = [x for x in read_metrics(path / "metrics.jsonl") if "online/updates" in x]
    assert lines[-1]["online/updates"] == run.recipe.schedule.online.updates(120, 32)
    assert np.isfinite([value for line in lines for value in line.values() if isinstance(value, float)]).all()
    assert {"world/loss", "actor/loss", "critic/loss"} <= lines[-1].keys()


def test_no_latents_are_counted_or_kept_if_items_begin_blank(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(played, "_PATIENCE", 0.3)
    recipe = dreamer(**{"schedule.online.batch.begin": "blank"})
    plan = estimate.estimate(recipe)
    assert plan.rows == 120
    assert plan.replay_gib * 2**30 / plan.rows < 2 * 64 + 8
    assert needs(recipe, recipe.env.spaces(), recipe.schedule.online, torch.device("cpu"))[0].memo == 0


def test_the_estimate_counts_rows_updates_and_latents(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(played, "_PATIENCE", 0.3)
    plan = estimate.estimate(dreamer())
    assert plan.rows == 120
    latents = 2 * 64 + 8  # h in half precision, z in bytes
    frame = 3 * 64 * 64
    assert latents < plan.replay_gib * 2**30 / plan.rows < latents + frame
    assert plan.seconds is not None
    assert plan.seconds > 0
