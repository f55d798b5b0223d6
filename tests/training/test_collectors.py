"""Experience actors as the learner sees them, without Ray: order, weights, deaths, what is stored."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from near_cluster import near
from online_world import tally
from test_online import StopAfter, launch, rows_of
from torch import nn

from oneiro.data import stream_folder
from oneiro.data.collect import episode_seeds
from oneiro.data.replay import Replay
from oneiro.data.replay_episodes import ReplayEpisodes
from oneiro.envs.toy import counter_length
from oneiro.errors import MissingExtra, OneiroError
from oneiro.training.actors import Actors, pack, unpack
from oneiro.training.collectors import check
from oneiro.training.log import read_metrics
from oneiro.training.online import Online
from oneiro.training.ray_actors import connected
from oneiro.training.recipe import Recipe, tweak
from oneiro.training.run import Run, Stopped


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(stream_folder, "LARGEST", 32)


def counters(**values) -> Recipe:
    """Four counters, played by two actors; `values` of `Actors`."""
    options = {f"schedule.online.actors.{k}": v for k, v in {"num": 2, "turns": 5, **values}.items()}
    return tweak(tally(), {"env.num": 4, **options})


def check_streams(replay: Replay, seed: int = 0) -> list[tuple[int, int]]:
    """Every stream is whole episodes of the counter, in order, but those marked as cut off: (stream, row after it).

    Their seeds are those of their ids, their latents the states of just these rows.
    """
    episodes, cut, ids = ReplayEpisodes(replay), [], []
    for stream, (rows, memo) in enumerate(rows_of(replay)):
        shown, action = rows.obs["vector"][0], rows.action[0, :, 0]
        firsts = rows.is_first[0].nonzero()[:, 0].tolist()
        assert firsts[0] == 0
        assert torch.equal(memo["deter"][0, :, 0] - 1, shown[:, 0])
        own = [id for segment in replay.streams[stream].segments.values() for _, id in segment.firsts]
        ids += own
        for id, start, stop in zip(own, firsts, [*firsts[1:], len(shown)], strict=True):
            number, length = episode_seeds(seed, int(id))[0], stop - start
            assert shown[start:stop, 0].tolist() == list(range(length))
            assert rows.reward[0, start:stop].tolist() == list(range(length))
            assert torch.equal(shown[start:stop, 3], action[start:stop])  # what the environment was told
            assert set(shown[start:stop, 1].tolist()) == {number % 2**16}
            assert set(shown[start:stop, 2].tolist()) == {number // 2**16}
            is_over = length - 1 == counter_length(number)
            assert rows.terminated[0, start:stop].sum() == (is_over and number % 2 == 0)
            if stop == len(shown):
                continue
            assert ("abandoned" in episodes.info(id)) == (not is_over)
            if not is_over:
                cut.append((stream, stop))
    assert len(set(ids)) == len(ids)
    return cut


def logged(path: Path) -> list[dict]:
    return [line for line in read_metrics(path / "metrics.jsonl") if "online/updates" in line]


def test_rows_of_actors_are_stored_in_their_streams(tmp_path, monkeypatch):
    cluster = near(monkeypatch)
    run = launch(counters(), tmp_path / "run")
    assert check_streams(run.replay) == []
    assert run.replay.rows == 240
    assert [x.role.share.index for x in cluster.actors] == [0, 1]
    assert all(x.actor.env.num_envs == 2 and not x.is_alive for x in cluster.actors)
    for stream, own in enumerate(run.replay.streams):
        ids = [id for segment in own.segments.values() for _, id in segment.firsts]
        assert {id % 2 for id in ids} == {stream % 2}
    lines = logged(tmp_path / "run")
    assert [line["step"] for line in lines] == [60, 120, 180, 240]
    # 32 items of 9 rows have to be there, some in every stream
    since = next(
        s
        for s in range(40, 240, 2)
        if sum(max(0, n - 8) for n in rows_after(s)) >= 32 and min(rows_after(s)) > 8
    )
    assert [x["online/updates"] for x in lines] == [max(0, 1 + (x["step"] - since) // 4) for x in lines]


def rows_after(steps: int) -> list[int]:
    """Rows of the four streams if the two actors hand over five turns at a time, one after the other."""
    chunks, rest = divmod(steps, 10)
    turns = [5 * (chunks // 2 + chunks % 2), 5 * (chunks // 2)]
    turns[chunks % 2] += rest // 2
    return [turns[0], turns[1]] * 2


def test_a_dead_actor_is_replaced_and_its_episodes_are_cut_off(tmp_path, monkeypatch, caplog):
    cluster = near(monkeypatch, dies={(1, 0): 3, (1, 1): 1, (0, 0): 5})
    run = launch(counters(), tmp_path / "run")
    cut = check_streams(run.replay)
    assert cut  # at the least one of them was in the middle of an episode
    assert {row for stream, row in cut if stream % 2} <= {15, 20}  # 5 turns each time
    assert {row for stream, row in cut if not stream % 2} <= {25}
    assert run.replay.rows == 240
    lives = [(x.role.share.index, x.role.life) for x in cluster.actors]
    assert sorted(lives) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    last = logged(tmp_path / "run")[-1]
    assert last["online/crashed"] == 3 * 2
    assert "experience actor 1 is gone and is started again: the test has ended it" in caplog.text


def test_actors_are_throttled_and_get_weights_every_few_updates(tmp_path, monkeypatch):
    cluster = near(monkeypatch)
    launch(counters(refresh=6, ahead=3), tmp_path / "run")
    assert cluster.most == 3
    made = logged(tmp_path / "run")[-1]["online/updates"]
    assert made / 12 - 2 < len(cluster.packed) <= made / 6 + 1
    assert len({x.tobytes() for x in cluster.packed}) == len(cluster.packed)
    for index in (0, 1):  # each of them once, in order; the newest may not have been due any more
        got = [number for actor, number in cluster.sent if actor == index]
        assert got[0] == 0
        assert got == sorted(set(got))


@pytest.mark.parametrize(("actors", "looks"), [(0, 61), (4, 90)])
def test_a_stopped_run_goes_on_with_another_number_of_actors(tmp_path, monkeypatch, actors, looks):
    near(monkeypatch)
    path = tmp_path / "run"
    with pytest.raises(Stopped):
        launch(counters(), path, StopAfter(looks))
    spans = Replay(path / "replay", mode="r").spans
    assert 0 < spans[:, 1].sum() < 240
    values = {"num": actors} if actors else {"num": 0, "turns": 16}
    recipe = tweak(counters(), {"schedule.online.actors": Actors(**values)})
    run = launch(recipe, path)
    assert run.replay.rows == 240
    assert set(check_streams(run.replay)) <= {(stream, int(row)) for stream, row in enumerate(spans[:, 1])}
    assert logged(path)[-1]["step"] == 240


def test_actors_that_die_again_and_again_stop_the_run(tmp_path, monkeypatch):
    near(monkeypatch, dies={(0, 0): 2, **{(0, life): 0 for life in range(1, 9)}})
    with pytest.raises(
        OneiroError, match=r"actor 0 died 3 times in a row.*max_deaths.*the test has ended it"
    ):
        launch(counters(max_deaths=3), tmp_path / "run")


def test_an_actor_that_does_not_answer_counts_as_dead(tmp_path, monkeypatch):
    cluster = near(monkeypatch, silent=[1])
    with pytest.raises(OneiroError, match=r"actor 1 died 2 times in a row.*did not answer for 0\.01 s"):
        launch(counters(max_deaths=2, timeout=0.01), tmp_path / "run")
    assert [x.role.life for x in cluster.actors if x.role.share.index == 1] == [0, 1]
    assert not any(x.is_alive for x in cluster.actors)


def test_an_actor_that_has_not_begun_is_waited_for(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("oneiro.training.collectors.PATIENCE", 0.0)
    cluster = near(monkeypatch, late={1: 3})
    run = launch(counters(max_deaths=2, timeout=0.01), tmp_path / "run")
    assert [x.role.life for x in cluster.actors] == [0, 0]
    assert check_streams(run.replay) == []
    assert caplog.text.count("experience actors have not begun") == 1


def test_what_cannot_work_is_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"actors\.turns has no effect without actors"):
        Actors(turns=3)
    with pytest.raises(ValueError, match="overlap has no effect with actors"):
        tweak(counters(), {"schedule.online.overlap": False})
    with pytest.raises(ValueError, match=r"actors\.ahead is 0"):
        Actors(num=1, ahead=0)
    with pytest.raises(ValueError, match="Ray Client"):
        Actors(num=1, address="ray://head:10001")
    with pytest.raises(OneiroError, match=r"env\.num is 6, which 4 actors cannot share"):
        check(Actors(num=4), 6, 1)
    with pytest.raises(OneiroError, match="torchrun has started 2 processes"):
        check(Actors(num=2), 6, 2)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"oneiro\[ray\]"), connected(Actors(num=1)):
        pass


def test_weights_travel_as_bytes():
    def module(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        made = nn.ModuleDict({"a": nn.Linear(3, 5), "b": nn.BatchNorm1d(3)})
        made.register_buffer("flag", torch.rand(3) < 0.5)
        made.register_buffer("small", torch.randn(5).bfloat16())
        made["b"].num_batches_tracked += seed  # an int64, which odd sizes before it leave unaligned
        return made

    there, here = module(1), module(2)
    packed = pack(there)
    packed.flags.writeable = False  # as it comes out of Ray's store
    unpack(here, packed)
    for (name, x), (_, y) in zip(there.state_dict().items(), here.state_dict().items(), strict=True):
        assert torch.equal(x, y), name
    with pytest.raises(AssertionError):
        unpack(nn.Linear(3, 3), packed)


def test_the_line_of_the_stage_names_its_actors():
    stage: Online = counters().schedule.online
    assert "240 steps in 2 actors;" in stage.line()
    assert "actors" not in replace(stage, actors=Actors()).line()


def test_another_policy_acts_in_actors(tmp_path, monkeypatch):
    from online_world import PositiveConfig

    near(monkeypatch)
    run: Run = launch(tweak(counters(), {"schedule.online.policy": PositiveConfig()}), tmp_path / "run")
    assert check_streams(run.replay) == []
    assert all((rows.action >= 0).all() for rows, _ in rows_of(run.replay))
    assert np.isfinite(run.agent.world.net.weight.detach().numpy()).all()
