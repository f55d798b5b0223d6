import numpy as np
import pytest
import torch

from oneiro.agent import Agent
from oneiro.behaviour import Behaviour
from oneiro.behaviours.explore import HeldRandom
from oneiro.behaviours.linear import LinearConfig
from oneiro.behaviours.population import Population
from oneiro.data.collect import episode_seeds, play
from oneiro.envs.toy import ToyConfig, counter_length
from oneiro.envs.vector import VectorEnv
from oneiro.spaces import ActionCodec
from oneiro.types import Decision, Losses, Prediction
from oneiro.world import WorldModel

SPACES = ToyConfig(id="counter").spaces()


class Reader(WorldModel):
    """Reads the counter's vector and checks that every row arrives once, in order, with the action that led to it."""

    feature_dim = 3

    def __init__(self):
        super().__init__()
        self.spaces, self.blank = SPACES, torch.nn.Parameter(torch.zeros(1))
        self.rows_seen = 0

    def losses(self, batch, parts, before=None):
        return Losses({"all": self.blank.sum()})

    def start(self, n):
        return {"seen": torch.full((n, 3), -1.0)}

    def observe(self, state, row):
        step, low, high, echo = row.obs["vector"].unbind(-1)
        seen = state["seen"]
        assert row.mask.all()
        assert not row.terminated.any()  # the last row of an episode needs no action
        assert torch.equal(row.is_first, step == 0)
        assert torch.equal(row.reward, step)
        assert torch.equal(row.action[:, 0], echo)
        goes_on = ~row.is_first
        assert torch.equal(step[goes_on], seen[goes_on, 0] + 1)
        assert torch.equal(low[goes_on], seen[goes_on, 1])
        assert torch.equal(row.obs["image"][:, 0, 0, 0].float(), step)
        self.rows_seen += len(step)
        return {"seen": torch.stack([step, low, high], -1)}

    def step(self, state, action, temperature=1.0):
        return Prediction(state)

    def feature(self, state):
        return state["seen"]


class Answer(Behaviour):
    """An action that depends on what was seen, on the key and on its own clock."""

    def memory(self, n):
        return {"key": torch.arange(n), "t": torch.zeros(n).long()}

    def act(self, world, state, memory, *, goal=None, explore=False):
        seen = world.feature(state)
        assert torch.equal(memory["t"], seen[:, 0].long())
        number = (seen[:, 0] * 7 + seen[:, 1] + memory["key"] % 1000 + 500 * explore) % 1000
        return Decision(number[:, None] / 500 - 1, {"key": memory["key"], "t": memory["t"] + 1})


def collect(agent, ids=range(12), *, num=3, workers="sync", seed=4, **options):
    env = ToyConfig(id="counter", num=num, workers=workers, processes=min(num, 2)).make()
    try:
        return {e.id: e for e in play(env, agent, ids, seed=seed, **options)}
    finally:
        env.close()


def held(k=(3,)):
    return Agent(None, HeldRandom(hold=k).build(SPACES)).eval()


def test_episodes_are_whole_and_aligned():
    world = Reader()
    episodes = collect(Agent(world, Answer()).eval(), range(20))
    assert sorted(episodes) == list(range(20))
    for id, episode in episodes.items():
        seed, key = episode_seeds(4, id)
        length = counter_length(seed)
        vector = episode.check().obs["vector"]
        assert len(episode) == length + 1
        assert vector[:, 0].tolist() == list(range(length + 1))
        assert (vector[:, 1] + 2**16 * vector[:, 2] == seed).all()
        assert np.array_equal(vector[:, 3], episode.action[:, 0])
        assert episode.action[0] == 0
        assert np.array_equal(episode.reward, vector[:, 0])
        assert episode.obs["image"].shape == (length + 1, 3, 64, 64)
        assert np.array_equal(episode.obs["image"][:, 0, 5, 5], vector[:, 0])
        assert episode.terminated.tolist() == [False] * length + [seed % 2 == 0]
        assert episode.info == {
            "seed": seed,
            "truncated": seed % 2 == 1,
            "crashed": False,
            "score": length * (length + 1) / 2,
            "length": length,
        }
        expected = (np.arange(length) * 7 + seed % 2**16 + key % 1000) % 1000 / 500 - 1
        assert np.allclose(episode.action[1:, 0], expected, atol=1e-6)
    assert world.rows_seen == sum(e.info["length"] for e in episodes.values())


@pytest.mark.parametrize("agent", [Agent(Reader(), Answer()).eval(), held((2, 5))], ids=["seeing", "blind"])
def test_slots_and_workers_change_nothing(agent):
    reference = collect(agent, num=1)
    for num, workers in ((3, "sync"), (16, "sync"), (5, "async")):
        episodes = collect(agent, num=num, workers=workers)
        assert sorted(episodes) == sorted(reference)
        for id, episode in episodes.items():
            same = reference[id]
            assert episode.info == same.info
            assert np.array_equal(episode.action, same.action)
            assert np.array_equal(episode.obs["image"], same.obs["image"])
            assert np.array_equal(episode.obs["vector"], same.obs["vector"])


def test_any_ids_in_any_order():
    whole = collect(held())
    some = collect(held(), [7, 2, 11], num=2)
    assert sorted(some) == [2, 7, 11]
    for id, episode in some.items():
        assert np.array_equal(episode.action, whole[id].action)
    other = collect(held(), [7], seed=5)[7]
    assert other.info["seed"] != whole[7].info["seed"]
    assert collect(held(), []) == {}


def test_shared_seeds():
    episodes = collect(held(), range(6), seed_ids=[0, 1, 2, 0, 1, 2])
    for id in range(3):
        assert episodes[id].info == episodes[id + 3].info
        assert np.array_equal(episodes[id].action, episodes[id + 3].action)
    with pytest.raises(ValueError, match="shorter"):
        collect(held(), range(6), seed_ids=[0])


def test_exploration_reaches_the_behaviour():
    agent = Agent(Reader(), Answer()).eval()
    calm, exploring = collect(agent, [0]), collect(agent, [0], explore=True)
    assert not np.allclose(calm[0].action[1:], exploring[0].action[1:])


def test_without_recording_only_pictures_are_missing():
    kept, bare = collect(held()), collect(held(), record=False)
    for id, episode in bare.items():
        assert episode.obs == {}
        assert episode.info == kept[id].info
        assert np.array_equal(episode.reward, kept[id].reward)


def test_steps_are_counted():
    counts = []
    episodes = collect(held(), num=4, on_step=counts.append)
    assert sum(counts) == sum(e.info["length"] for e in episodes.values())
    assert max(counts) == 4


def test_every_episode_may_act_with_its_own_weights():
    """The population's rows are seated with the weights of their id, wherever they are played."""
    world = Reader()
    member = LinearConfig(has_bias=True).build(SPACES, world.feature_dim)
    population = Population(member)
    weights = torch.zeros(12, population.num_weights)
    weights[:, 0] = torch.linspace(-1, 1, 12)  # the bias comes first
    for num in (1, 5):
        agent = Agent(world, population).eval()
        episodes = collect(agent, range(12), num=num, memory=lambda ids: population.seat(weights[ids]))
        for id, episode in episodes.items():
            assert np.allclose(episode.action[1:], torch.tanh(weights[id, 0]), atol=1e-6)


def test_keys_are_set_wherever_they_are():
    """Also the key of a member inside a population."""

    class Keyed(Answer):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def act(self, world, state, memory, *, goal=None, explore=False):
            action = (memory["key"] % 1000 / 500 - 1)[:, None].float() + 0 * self.weight
            return Decision(action, memory)

    episodes = collect(Agent(Reader(), Population(Keyed())).eval(), range(6), num=2)
    for id, episode in episodes.items():
        expected = episode_seeds(4, id)[1] % 1000 / 500 - 1
        assert np.allclose(episode.action[1:], expected, atol=1e-6)


def test_actions_are_recorded_as_they_were_told():
    """Out of bounds they are clipped; scores of choices become one-hot."""

    class Loud(Behaviour):
        sees = "nothing"

        def __init__(self, dim):
            super().__init__()
            self.dim = dim

        def memory(self, n):
            return {"t": torch.zeros(n).long()}

        def act(self, world, state, memory, *, goal=None, explore=False):
            return Decision(torch.arange(self.dim).float().repeat(len(memory["t"]), 1) + 3, memory)

    episode = collect(Agent(None, Loud(1)), [0])[0]
    assert (episode.action[1:] == 1).all()
    assert (episode.obs["vector"][1:, 3] == 1).all()
    env = ToyConfig(id="catch", num=1).make()
    (caught,) = play(env, Agent(None, Loud(3)), [0], seed=0)
    env.close()
    assert caught.action[1:].tolist() == [[0, 0, 1]] * 14
    assert ActionCodec.of(env.single_action_space).is_discrete


def test_a_crash_is_marked_and_the_rest_is_played(monkeypatch):
    env = ToyConfig(id="counter", num=3).make()
    slots = env._workers[0].slots
    whole = collect(held())
    doomed = next(id for id, e in whole.items() if e.info["length"] >= 4)
    real = slots._step

    def step(slot):
        if slots._where[slot] == (whole[doomed].info["seed"], 2):
            raise RuntimeError("power cut")
        real(slot)

    monkeypatch.setattr(slots, "_step", step)
    counts = []
    episodes = {e.id: e for e in play(env, held(), range(12), seed=4, on_step=counts.append)}
    env.close()
    cut = episodes.pop(doomed)
    assert cut.info["crashed"]
    assert cut.info["truncated"]
    assert cut.info["length"] == 2
    assert len(cut.check()) == 3
    assert not cut.terminated.any()
    assert np.array_equal(cut.obs["vector"], whole[doomed].obs["vector"][:3])
    for id, episode in episodes.items():
        assert episode.info == whole[id].info
        assert np.array_equal(episode.action, whole[id].action)
    assert sum(counts) == 2 + sum(e.info["length"] for e in episodes.values())


def test_rows_are_marked_as_the_environment_says():
    env = _Marking(ToyConfig(id="counter", num=1, workers="sync"))
    agent = held()
    episodes = list(play(env, agent, range(4), seed=4))
    env.close()
    for episode in episodes:
        assert len(episode) > 3
        assert episode.terminated[:4].tolist() == [False, False, True, False]


class _Marking(VectorEnv):
    """Says that every second step of an episode is an end."""

    def step(self, actions):
        obs, reward, terminated, truncated, info = super().step(actions)
        return obs, reward, terminated, truncated, info | {"terminal": reward == 2}


def test_seeds_are_independent():
    pairs = [episode_seeds(seed, id) for seed in range(20) for id in range(50)]
    assert len({env for env, _ in pairs}) == len({key for _, key in pairs}) == 1000
    assert all(0 <= env < 2**31 and 0 <= key < 2**63 for env, key in pairs)
