import gymnasium
import numpy as np
import pytest
import torch
from counter_episodes import LENGTHS, counter_episode
from stream_rows import fill as fill_streams

from oneiro.data.minari import export_minari, import_minari
from oneiro.data.replay import Replay
from oneiro.data.replay_episodes import ReplayEpisodes
from oneiro.data.store import EpisodeStore
from oneiro.errors import OneiroError
from oneiro.spaces import ActionCodec, Spaces

minari = pytest.importorskip("minari")


@pytest.fixture(autouse=True)
def local(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def fill(folder, codec):
    store = EpisodeStore(folder)
    for id, rows in enumerate(LENGTHS):
        episode = counter_episode(id, rows)
        if codec.is_discrete:
            choice = torch.arange(rows) % codec.dim
            episode.action = torch.nn.functional.one_hot(choice, codec.dim).float().numpy()
            episode.action[0] = 0
        episode.obs["vector"] = np.full((rows, 4), id, np.float32)
        store.add(episode)
    return store


@pytest.mark.parametrize("codec", [ActionCodec(3), ActionCodec(2, (-9.0, -9.0), (99.0, 99.0))])
@pytest.mark.parametrize("by_path", [False, True])
def test_round_trip(tmp_path, codec, by_path):
    spaces = Spaces({"image": (3, 8, 8), "vector": (4,)}, codec)
    store = fill(tmp_path / "a", codec)
    written = export_minari(store, "counter/test-v0", spaces, description="counts")
    again = EpisodeStore(tmp_path / "b")
    found = import_minari(tmp_path / "minari/counter/test-v0" if by_path else "counter/test-v0", again)
    assert found == spaces
    kept = [e for e in store.episodes() if len(e) > 1]
    assert written.total_episodes == len(kept) == len(again)
    assert written.total_steps == sum(len(e) - 1 for e in kept)
    for before, after in zip(kept, again.episodes(), strict=True):
        assert after.info == before.info | {"source": after.info["source"]}
        for name, array in before.columns().items():
            assert np.array_equal(array, after.columns()[name]), name
            assert array.dtype == after.columns()[name].dtype


def test_what_minari_sees(tmp_path):
    spaces = Spaces({"image": (3, 8, 8), "vector": (4,)}, ActionCodec(3))
    dataset = export_minari(fill(tmp_path / "a", spaces.action), "counter-v0", spaces)
    assert dataset.action_space == gymnasium.spaces.Discrete(3)
    first = next(iter(dataset.iterate_episodes([1])))
    source = counter_episode(1, LENGTHS[1])
    assert len(first.observations["image"]) == LENGTHS[1]
    assert np.array_equal(first.observations["image"], source.obs["image"])
    assert first.actions.tolist() == [t % 3 for t in range(1, LENGTHS[1])]
    assert np.array_equal(first.rewards, source.reward[1:])
    assert first.truncations.tolist() == [False] * (LENGTHS[1] - 2) + [True]
    assert dataset.storage.get_episode_metadata([1]).__next__()["seed"] == 7


@pytest.mark.filterwarnings("ignore:.*None:UserWarning")  # of Minari, about what is not given
def test_foreign_data_set(tmp_path):
    """Channels last, float64, actions that count from 1."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (6, 16, 16, 3), np.uint8)
    buffer = minari.data_collector.EpisodeBuffer(
        observations=image,
        actions=np.array([1, 2, 3, 1, 2]),
        rewards=np.arange(5.0),
        terminations=np.arange(5) == 4,
        truncations=np.zeros(5, bool),
    )
    minari.create_dataset_from_buffers(
        "foreign-v0",
        [buffer],
        observation_space=gymnasium.spaces.Box(0, 255, (16, 16, 3), np.uint8),
        action_space=gymnasium.spaces.Discrete(3, start=1),
        jpeg_encoding=False,
    )
    store = EpisodeStore(tmp_path / "s")
    spaces = import_minari("foreign-v0", store)
    assert spaces.obs == {"image": (3, 16, 16)}
    episode = store.read(0)
    assert np.array_equal(episode.obs["image"], image.transpose(0, 3, 1, 2))
    assert episode.action.argmax(1)[1:].tolist() == [0, 1, 2, 0, 1]
    assert episode.reward.tolist() == [0, 0, 1, 2, 3, 4]
    assert episode.terminated.tolist() == [False] * 5 + [True]
    assert not episode.action[0].any()


def test_refusals(tmp_path):
    spaces = Spaces({"image": (3, 8, 8), "vector": (4,)}, ActionCodec(3))
    store = fill(tmp_path / "a", spaces.action)
    with pytest.raises(OneiroError, match="no Minari data set 'nothing-v0'"):
        import_minari("nothing-v0", store)
    with pytest.raises(OneiroError, match="no episodes with a step"):
        export_minari(EpisodeStore(tmp_path / "empty"), "empty-v0", spaces)
    export_minari(store, "twice-v0", spaces)
    with pytest.raises(OneiroError, match="already exists"):
        export_minari(store, "twice-v0", spaces)


def test_the_finished_episodes_of_a_replay_are_exported(tmp_path):
    replay = Replay(tmp_path / "replay", streams=2)
    fill_streams(replay, 40)
    view = ReplayEpisodes(replay)
    spaces = Spaces({"image": (3, 4, 4), "vector": (4,)}, ActionCodec(2, (-1e3, -1e3), (1e3, 1e3)))
    export_minari(view, "streams/test-v0", spaces)
    store = EpisodeStore(tmp_path / "copy")
    import_minari("streams/test-v0", store)
    assert len(store) == len(view)
    for a, b in zip(view.episodes(), store.episodes(), strict=True):
        assert np.array_equal(a.obs["vector"], b.obs["vector"])
        assert np.array_equal(a.reward[1:], b.reward[1:])
        assert np.array_equal(a.terminated, b.terminated)
        assert a.info["truncated"] == b.info["truncated"]
