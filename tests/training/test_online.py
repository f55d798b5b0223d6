import json
from pathlib import Path

import numpy as np
import pytest
import torch
from online_world import PositiveConfig, tally

from oneiro.behaviours.explore import HeldRandom
from oneiro.data import stream_folder
from oneiro.data.collect import episode_seeds
from oneiro.data.replay import Replay
from oneiro.envs.toy import counter_length
from oneiro.errors import OneiroError
from oneiro.noise import uniform
from oneiro.training.log import read_metrics
from oneiro.training.online import Online
from oneiro.training.progress import Progress
from oneiro.training.recipe import Recipe, to_json, tweak
from oneiro.training.run import Run, Stopped, Trained
from oneiro.training.run_folder import RunFolder
from oneiro.training.signals import Stop

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dreamerv3_replay.json").read_text())


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(stream_folder, "LARGEST", 32)


class StopAfter(Stop):
    """Asks to stop after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        super().__init__()

    @property
    def requested(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    @requested.setter
    def requested(self, _: bool) -> None: ...


def launch(recipe: Recipe, path: Path, stop: Stop | None = None) -> Run:
    with RunFolder.open(path, {"values": to_json(recipe)}, "test", ("values",)) as folder:
        run = Run(recipe, folder, Progress("test", "cpu", path, quiet=True), stop or Stop())
        run.train()
    return run


def rows_of(replay: Replay):
    """Everything stored, one TimeStep [1, T] a stream, and the memo."""
    for stream, (first, stop) in enumerate(replay.spans.tolist()):
        pieces = replay.locate(np.array([[stream, first]]), stop - first)
        yield replay.read(pieces), replay.memo(pieces)


def check_resets(replay: Replay) -> None:
    """Action and reward are zero where an episode begins."""
    for rows, _ in rows_of(replay):
        assert rows.is_first[0, 0]
        assert not rows.action[rows.is_first].any()
        assert not rows.reward[rows.is_first].any()


def check_rows(replay: Replay, cut: tuple[int, ...] = ()) -> None:
    """Every stream is episodes of the counter end to end, with the actions, rewards and latents of their rows."""
    for rows, memo in rows_of(replay):
        step, seed, action = rows.obs["vector"][0, :, 0], rows.obs["vector"][0, :, 1:3], rows.action[0, :, 0]
        assert rows.is_first[0, 0]
        for t in range(len(step)):
            if rows.is_first[0, t]:
                assert step[t] == action[t] == rows.reward[0, t] == 0
            else:
                assert step[t] == step[t - 1] + 1
                assert torch.equal(seed[t], seed[t - 1])
                assert rows.reward[0, t] == step[t]
                assert rows.obs["vector"][0, t, 3] == action[t]  # what the environment was told
            number = int(seed[t, 0]) + int(seed[t, 1]) * 2**16
            is_over = step[t] == counter_length(number)
            assert rows.terminated[0, t] == (is_over and number % 2 == 0)
            if t + 1 < len(step) and t + 1 not in cut:
                assert rows.is_first[0, t + 1] == is_over
        assert torch.equal(memo["deter"][0, :, 0] - 1, step)  # the state of just this row


def test_train_ratio_is_the_official_one():
    """Official: 256 / (16 * 64) updates a step, one at the first call."""
    for name, ratio, first in (("updates", 256, 1), ("ratio1", 1024, 1), ("first_called_at_1040", 256, 1040)):
        stage = Online(steps=1, fit=None, train_ratio=ratio)  # type: ignore[arg-type]
        done, made = 0, []
        for step in range(first, first + len(VECTORS["train_ratio"][name])):
            made.append(stage.updates(step, first) - done)
            done += made[-1]
        assert made == VECTORS["train_ratio"][name]


def test_rows_are_aligned_and_counted(tmp_path):
    run = launch(tally(), tmp_path / "run")
    check_rows(run.replay)
    assert run.replay.rows == 240
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    logged = [line for line in lines if "online/updates" in line]
    assert [line["step"] for line in logged] == [60, 120, 180, 240]
    # 32 items of 9 rows are there after 3 x (8 + 11) steps; from then on 8 / 32 updates a step, the first at once
    since = 3 * 19
    assert [line["online/updates"] for line in logged] == [1 + (s - since) // 4 for s in (60, 120, 180, 240)]
    played = [line for line in lines if "episode/score" in line]
    assert len(played) == len(run.store)
    for line in played:
        n = line["episode/length"]
        assert line["episode/score"] == n * (n + 1) / 2  # 1 + 2 + ... + n
        assert line["episode/frames"] == line["step"]
    assert sorted(int(x["episode/length"]) + 1 for x in played) == sorted(run.store.lengths.tolist())


def test_learning_moves_the_weights_and_the_latents(tmp_path):
    run = launch(tally(), tmp_path / "run")
    losses = [x["world/loss"] for x in read_metrics(tmp_path / "run" / "metrics.jsonl") if "world/loss" in x]
    assert losses[-1] < losses[0]
    seen = torch.cat([memo["deter"][0, :, 2] for _, memo in rows_of(run.replay)])
    assert len(seen.unique()) > 10  # updates the network had seen when a row was last visited
    assert (seen[:10] > 0).any()


@pytest.mark.parametrize("workers", ["sync", "async"])
def test_overlap_gives_the_same_rows(tmp_path, workers):
    def content(path: Path, overlap: bool):
        recipe = tweak(
            tally(),
            {"schedule.online.overlap": overlap, "schedule.online.steps": 120, "env.workers": workers},
        )
        run = launch(recipe, path)
        return [(rows, memo["deter"]) for rows, memo in rows_of(run.replay)]

    for (a, x), (b, y) in zip(content(tmp_path / "a", True), content(tmp_path / "b", False), strict=True):
        assert all(torch.equal(a.obs[k], b.obs[k]) for k in a.obs)
        assert torch.equal(a.action, b.action)
        assert torch.equal(x, y)


@pytest.mark.parametrize("looks", [5, 61, 90])
def test_a_stopped_run_goes_on_from_its_checkpoint(tmp_path, looks):
    path = tmp_path / "run"
    with pytest.raises(Stopped):
        launch(tally(), path, StopAfter(looks))
    before = Trained.load(tally(), RunFolder.read(path))
    spans, kept = before.replay.spans, list(rows_of(before.replay))
    assert 0 < before.replay.rows < 240
    run = launch(tally(), path)
    stop = tuple(spans[:, 1].tolist())
    assert run.replay.rows == 240
    check_rows(run.replay, cut=stop)
    for s, ((rows, _), (old, _)) in enumerate(zip(rows_of(run.replay), kept, strict=True)):
        assert torch.equal(rows.obs["vector"][:, : stop[s]], old.obs["vector"])
        assert rows.is_first[0, stop[s]]
    lines = [x for x in read_metrics(path / "metrics.jsonl") if "online/updates" in x]
    assert lines[-1]["online/updates"] == 1 + (240 - 57) // 4
    assert len(set(run.store.ids.tolist())) == len(run.store)


def test_a_killed_run_loses_what_came_after_its_checkpoint(tmp_path):
    """Rows of the lost future reach the disk, then the process is gone: the run goes on from the checkpoint."""
    path, recipe = tmp_path / "run", tally()
    with pytest.raises(Stopped):
        launch(recipe, path, StopAfter(61))
    with RunFolder.open(path, {"values": to_json(recipe)}, "test") as folder:
        run = Run(recipe, folder, Progress("test", "cpu", path, quiet=True), Stop())
        spans, saved = run.replay.spans.tolist(), run.replay.state()
        run.save = run.replay.flush  # type: ignore[method-assign]
        run.train()
        assert run.replay.rows == 240
    run = launch(recipe, path)
    assert run.replay.rows == 240
    check_rows(run.replay, cut=tuple(stop for _, stop in spans))
    ids = run.store.ids
    assert len(set(ids.tolist())) == len(ids)
    assert run.replay.total == 240
    assert run.replay.begun > saved["begun"]


def test_two_runs_of_one_recipe_are_the_same(tmp_path):
    a, b = launch(tally(), tmp_path / "a"), launch(tally(), tmp_path / "b")
    assert torch.equal(a.agent.world.net.weight, b.agent.world.net.weight)
    for (x, m), (y, n) in zip(rows_of(a.replay), rows_of(b.replay), strict=True):
        assert torch.equal(x.action, y.action)
        assert torch.equal(m["deter"], n["deter"])


def test_streams_may_be_added_on_resume(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(Stopped):
        launch(tally(), path, StopAfter(61))
    run = launch(tweak(tally(), {"env.num": 5}), path)
    spans = run.replay.spans
    assert len(spans) == 5
    assert run.replay.rows >= 240
    check_rows(run.replay, cut=tuple(spans[:, 1].tolist()) + tuple(range(15, 60)))
    with pytest.raises(OneiroError, match="holds 5 streams"):
        launch(tally(), path)


def test_another_policy_may_act(tmp_path):
    recipe = tweak(tally(), {"schedule.online.policy": PositiveConfig(), "schedule.online.steps": 45})
    recipe = tweak(recipe, {"schedule.online.batch.size": 1})
    run = launch(recipe, tmp_path / "run")
    check_rows(run.replay)
    assert all((rows.action >= 0).all() for rows, _ in rows_of(run.replay))


def prefilled() -> Recipe:
    """120 of 240 steps at random, then only actions that are not negative."""
    policy = {"schedule.online.policy": PositiveConfig(), "schedule.online.prefill": 120}
    return tweak(tally(), {**policy, "schedule.online.batch.begin": "blank"})


def test_a_prefill_is_random_and_learning_starts_after_it(tmp_path):
    run = launch(prefilled(), tmp_path / "run")
    for rows, _ in rows_of(run.replay):
        action = rows.action[0, :, 0]
        assert (action[:41] < 0).sum() > 10  # row 40 is what the choice in row 39 led to
        assert (action[41:] >= 0).all()
    lines = [x for x in read_metrics(tmp_path / "run" / "metrics.jsonl") if "online/updates" in x]
    assert [line["online/updates"] for line in lines] == [0, 1, 1 + 60 // 4, 1 + 120 // 4]


@pytest.mark.parametrize("looks", [20, 90])
def test_a_prefill_that_was_stopped_goes_on(tmp_path, looks):
    path = tmp_path / "run"
    with pytest.raises(Stopped):
        launch(prefilled(), path, StopAfter(looks))
    stop = Trained.load(prefilled(), RunFolder.read(path)).replay.rows
    assert (stop < 120) == (looks == 20)
    run = launch(prefilled(), path)
    for rows, _ in rows_of(run.replay):
        action = rows.action[0, :, 0]
        assert (action[:41] < 0).sum() > 10
        assert (action[41:] >= 0).all()
    lines = [x for x in read_metrics(path / "metrics.jsonl") if "online/updates" in x]
    assert lines[-1]["online/updates"] == 1 + 120 // 4


def test_who_goes_on_after_a_prefill_draws_with_the_key_of_the_episode(tmp_path):
    run = launch(prefilled(), tmp_path / "run")
    found = 0
    for episode in run.store.episodes():
        key = torch.tensor([episode_seeds(0, episode.id)[1]])
        drawn = [float(uniform(key, torch.tensor([t]), 1)[0, 0]) for t in range(len(episode))]
        action = episode.action[1:, 0].tolist()
        begins = next(
            (k for k in range(len(action)) if action[k:] == pytest.approx(drawn[: len(action) - k])), None
        )
        found += begins is not None and begins > 0
    assert found >= 1  # an episode that the random player began


def test_items_that_begin_blank_need_no_latents(tmp_path):
    recipe = tweak(tally(), {"schedule.online.batch.begin": "blank"})
    run = launch(recipe, tmp_path / "run")
    assert run.replay.memo_type is None
    assert run.replay.rows == 240
    lines = [x for x in read_metrics(tmp_path / "run" / "metrics.jsonl") if "online/updates" in x]
    since = 3 * 18  # 32 items of 8 rows are there after 3 x (7 + 11) steps
    assert lines[-1]["online/updates"] == 1 + (240 - since) // 4
    assert lines[-1]["world/loss"] < lines[1]["world/loss"]


def test_what_cannot_work_is_refused(tmp_path):
    with pytest.raises(ValueError, match="train_ratio is 0"):
        tweak(tally(), {"schedule.online.train_ratio": 0.0})
    with pytest.raises(ValueError, match="prefill is 240 of 240 steps"):
        tweak(tally(), {"schedule.online.prefill": 240})
    with pytest.raises(ValueError, match=r"prefill is played here.*leave out actors\.num"):
        tweak(prefilled(), {"schedule.online.actors.num": 3})
    with pytest.raises(OneiroError, match="can never be met"):
        launch(tweak(tally(), {"schedule.online.steps": 40}), tmp_path / "a")
    with pytest.raises(OneiroError, match="capacity"):
        launch(tweak(tally(), {"data.capacity": 30}), tmp_path / "b")
    launch(tally(), tmp_path / "c")
    (tmp_path / "d").mkdir()
    (tmp_path / "c" / "replay").rename(tmp_path / "e")
    replay = Replay(tmp_path / "e", streams=3)
    with pytest.raises(OneiroError, match=r"deter float32\[3\].*another kind or size"):
        replay.put_memo(replay.locate(np.array([[0, 0]]), 1), {"deter": torch.zeros(1, 1, 7)})


def test_the_replay_of_another_environment_is_refused_and_kept(tmp_path):
    """As a user copies it into another run's folder: same shapes, other game."""
    launch(tally(), tmp_path / "run")
    (tmp_path / "other").mkdir()
    for name in ("recipe.json", "replay"):
        (tmp_path / "run" / name).rename(tmp_path / "other" / name)
    other = tweak(tally(), {"env.id": "catch"})
    files = sorted((tmp_path / "other" / "replay").rglob("*"))
    with pytest.raises(OneiroError, match="id: 'counter' there, 'catch' now"):
        launch(other, tmp_path / "other")
    assert sorted((tmp_path / "other" / "replay").rglob("*")) == files
    launch(tweak(tally(), {"env.timeout": 60.0}), tmp_path / "other")  # how it is run is no other environment


def test_an_online_stage_cannot_begin_with_another_run(tmp_path):
    launch(tally(), tmp_path / "run")
    record = {"values": to_json(tally())}
    record["origin"] = {"run": str(tmp_path / "run"), "stage": "online", "parts": []}
    with (
        RunFolder.open(tmp_path / "next", record, "test") as folder,
        pytest.raises(OneiroError, match=r"online stage.*leave out --origin"),
    ):
        Run(tally(), folder, Progress("test", "cpu", tmp_path / "next", quiet=True), Stop())


def test_a_run_with_streams_shows_its_episodes(tmp_path):
    launch(tally(), tmp_path / "run")
    trained = Trained.load(tally(), RunFolder.read(tmp_path / "run"))
    episode = next(trained.store.episodes())
    assert episode.obs["vector"][:, 0].tolist() == list(range(len(episode)))
    assert trained.store.fields == ("action", "image", "vector", "reward")


def test_rows_of_a_blind_policy_have_no_latents(tmp_path):
    blind = HeldRandom(hold=(2,))
    recipe = tweak(tally(), {"schedule.online.policy": blind, "schedule.online.steps": 60})
    recipe = tweak(recipe, {"schedule.online.batch.size": 1, "schedule.online.train_ratio": 0.1})
    run = launch(recipe, tmp_path / "run")
    assert run.done == {}
    assert run.replay.rows == 60
