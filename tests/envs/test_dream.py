"""A dream is an environment: Gymnasium's checks, its autoreset rules, seeds, rewinding, and what it refuses."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils import env_checker
from gymnasium.utils.passive_env_checker import check_action_space, check_observation_space
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from oneiro import tree
from oneiro.envs.dream import DreamEnv
from oneiro.envs.dream_actions import action_space
from oneiro.envs.single_dream import SingleDream
from oneiro.envs.toy import Catch
from oneiro.errors import OneiroError, Undecodable
from oneiro.spaces import ActionCodec
from oneiro.testing import CatchOracle, DodgeOracle
from oneiro.types import Carry, Obs, Prediction, State

MODES = list(AutoresetMode)
INFINITE = "ignore:.*A Box observation space (minimum|maximum) value is -?infinity"
ALONE = "ignore:.*Not able to test alternative render modes"


def catches(*balls: int) -> Carry:
    """Starts of `catch`, one for each column of the ball."""
    world = CatchOracle()
    return Carry(state={**world.start(len(balls)), "ball": torch.tensor(balls)})


def rain(n: int = 3, horizon: int = 12, **options: Any) -> DreamEnv:
    """Dreams of `dodge`, which end by chance (a random aim) and by the horizon."""
    return DreamEnv(DodgeOracle(), Carry(state=DodgeOracle().start(4)), n, horizon, **options)


class Row(gymnasium.Env):
    """A batch of one, shown to the checker of single environments."""

    def __init__(self, env: DreamEnv) -> None:
        self.env = env
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        obs, infos = self.env.reset(seed=seed, options=options)
        return obs[0], infos

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, infos = self.env.step(np.asarray(action)[None])
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), infos


def roll(env: DreamEnv, steps: int, seed: int = 0) -> list[tuple[Any, ...]]:
    """Random play from the present state; rows that are over are reset if nothing else does it."""
    env.action_space.seed(seed)
    found = []
    for _ in range(steps):
        found.append(env.step(env.action_space.sample()))
        over = found[-1][2] | found[-1][3]
        if env.autoreset_mode is AutoresetMode.DISABLED and over.any():
            env.reset(options={"reset_mask": over})
    return found


class FixedCatch(Catch):
    """The real game with the ball in one column."""

    def __init__(self, ball: int) -> None:
        super().__init__()
        self.column = ball
        self.observation_space = self.observation_space["image"]  # type: ignore[index]

    def begin(self) -> None:
        super().begin()
        self.ball = self.column

    def show(self) -> Any:
        return super().show()["image"]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("horizon", [9, 30])
def test_the_dream_of_an_exact_world_is_its_game_behind_gymnasiums_vector_environment(
    mode: AutoresetMode, horizon: int
) -> None:
    """Same actions, same pictures, rewards, ends and infos as SyncVectorEnv of the real game."""

    def game() -> gymnasium.Env:
        return gymnasium.wrappers.TimeLimit(FixedCatch(5), horizon)

    real = SyncVectorEnv([game] * 3, autoreset_mode=mode)
    dream = DreamEnv(CatchOracle(), catches(5), 3, horizon, autoreset_mode=mode)
    assert dream.single_observation_space == real.single_observation_space
    assert dream.observation_space == real.observation_space
    assert dream.action_space == real.action_space
    assert np.array_equal(dream.reset(seed=1)[0], real.reset(seed=1)[0])
    dream.action_space.seed(3)
    for t in range(40):
        if t in (4, 20):  # some begin again in mid-episode
            mask = np.array([False, True, t == 20])
            a, b = (env.reset(options={"reset_mask": mask.copy()})[0] for env in (dream, real))
            assert np.array_equal(a, b)
        actions = dream.action_space.sample()
        found, expected = dream.step(actions), real.step(actions)
        for x, y in zip(found[:4], expected[:4], strict=True):
            assert x.dtype == y.dtype
            assert np.array_equal(x, y)
        for key in ("final_obs", "_final_obs", "_final_info"):
            assert (key in found[4]) == (key in expected[4])
        if "final_obs" in expected[4]:
            where = expected[4]["_final_obs"]
            assert np.array_equal(found[4]["_final_obs"], where)
            assert all((x is not None) == w for x, w in zip(found[4]["final_obs"], where, strict=True))
            for i in where.nonzero()[0]:
                assert np.array_equal(found[4]["final_obs"][i], expected[4]["final_obs"][i])


@pytest.mark.filterwarnings(INFINITE, ALONE)
@pytest.mark.parametrize("sees", ["image", "feature"])
@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.value)
def test_gymnasiums_checks_pass_for_the_batch(mode: AutoresetMode, sees: Any) -> None:
    """Gymnasium 1.4 has no checker of vector environments; these are the checks of single ones that fit both."""
    env: Any = rain(autoreset_mode=mode, sees=sees)
    row: Any = rain(1, autoreset_mode=mode, sees=sees)
    check_observation_space(env.single_observation_space)
    check_action_space(env.single_action_space)
    env_checker.check_seed_deprecation(env)
    env_checker.check_reset_return_info_deprecation(env)
    env_checker.check_reset_return_type(env)
    env_checker.check_reset_seed_determinism(env)
    env_checker.check_reset_options(env)
    env_checker.check_returned_data_not_reused(row)
    env_checker.check_env(Row(row))
    env.reset(seed=0)
    for obs, reward, terminated, truncated, infos in roll(env, 30):
        assert obs in env.observation_space
        assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float64, np.bool_, np.bool_)
        assert not (terminated & truncated).any()
        assert isinstance(infos, dict)
    assert env.metadata["autoreset_mode"] is mode


@pytest.mark.filterwarnings(INFINITE, ALONE)
@pytest.mark.parametrize("world", [CatchOracle, DodgeOracle])
@pytest.mark.parametrize("view", [{"sees": "image"}, {"sees": "feature"}, {"channels": "last"}])
def test_gymnasiums_checker_passes_for_one(world: Any, view: dict[str, Any]) -> None:
    env = SingleDream(world(), Carry(state=world().start(4)), 20, render_mode="rgb_array", **view)
    env_checker.check_env(env)
    env.reset(seed=0)
    picture = env.render()
    assert picture is not None
    assert (picture.shape, picture.dtype) == ((64, 64, 3), np.uint8)
    env.close()
    env.close()


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.value)
def test_a_seed_is_a_dream(mode: AutoresetMode) -> None:
    env = rain(autoreset_mode=mode)
    env.reset(seed=7)
    first = roll(env, 40)
    env.reset(seed=7)
    torch.rand(5)  # others may throw torch's dice
    again = roll(env, 40)
    env.reset(seed=8)
    other = roll(env, 40)
    assert all(env_checker.data_equivalence(a, b, exact=True) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a[2], b[2]) for a, b in zip(first, other, strict=True))


def test_torchs_dice_and_the_worlds_mode_are_left_alone() -> None:
    world = DodgeOracle()
    world.add_module("frozen", torch.nn.Dropout().eval())

    def settle(n: int, random: np.random.Generator) -> Carry:
        torch.rand(n)  # as a world does whose posterior is drawn
        return Carry(state=world.start(n))

    dice = torch.get_rng_state()
    env = DreamEnv(world.train(), settle, 2, 5)
    world.frozen.eval()
    env.reset(seed=0)
    roll(env, 10)
    assert torch.equal(torch.get_rng_state(), dice)
    assert world.training
    assert not world.frozen.training


def test_ends_are_drawn_from_the_probability_of_going_on() -> None:
    class Coin(CatchOracle):
        def step(self, state: State, action: torch.Tensor, temperature: float = 1.0) -> Prediction:
            return Prediction(state, None, torch.full((len(action),), 0.9))

    env = DreamEnv(Coin(), catches(3), 200, 1000, sees="feature", autoreset_mode="SameStep")
    env.reset(seed=0)
    steps = roll(env, 50)
    assert np.mean([s[2].mean() for s in steps]) == pytest.approx(0.1, abs=0.01)
    assert all((s[1] == 0).all() for s in steps)  # no reward is a reward of 0
    assert steps[0][4]["final_info"]["cont"][steps[0][2]] == pytest.approx(0.9)
    assert np.stack([s[2] for s in steps]).any(0).mean() > 0.95  # rows have ends of their own


def test_rows_do_not_notice_that_others_begin_again() -> None:
    env = rain(2)
    env.reset(seed=0)
    moment = env.moment()
    actions = np.zeros((2, 1), np.float32)
    alone = env.step(actions)
    env.rewind(moment)
    env.reset(options={"reset_mask": np.array([False, True])})
    env._dice = moment.dice  # the starts of this world throw no dice; make sure that it does not matter
    beside = env.step(actions)
    assert np.array_equal(alone[0][0], beside[0][0])
    assert env.steps.tolist() == [1, 1]


def test_starts_are_all_used_and_may_be_made_on_demand() -> None:
    env = DreamEnv(CatchOracle(), catches(*range(16)), 400, 20, sees="feature")
    balls = env.reset(seed=0)[0][:, 1]
    assert len(set(balls.tolist())) == 16
    asked: list[int] = []

    def make(n: int, random: np.random.Generator) -> Carry:
        asked.append(n)
        return catches(*random.integers(16, size=n).tolist())

    env = DreamEnv(CatchOracle(), make, 5, 3, sees="feature")
    first = env.reset(seed=3)[0]
    roll(env, 8)
    assert np.array_equal(env.reset(seed=3)[0], first)
    assert set(asked) == {1, 5}


def test_every_row_has_noise_of_its_own() -> None:
    """Starts were drawn with one `draw`; dreams that begin at one start still differ."""
    starts = Carry(state={**DodgeOracle().start(1), "draw": torch.tensor([900])})
    env = DreamEnv(DodgeOracle(), starts, 50, 20, sees="feature")
    env.reset(seed=0)
    obs = env.step(np.zeros((50, 1), np.float32))[0]
    assert 1 < len(np.unique(obs, axis=0)) <= 3
    assert env.carry().state["draw"].tolist() == list(range(50))


def test_a_rewound_dream_goes_on_the_same_and_can_branch() -> None:
    env = rain(3, horizon=7)
    env.reset(seed=2)
    roll(env, 5)
    moment = env.moment()
    kept = copy.deepcopy(moment)
    first = roll(env, 12)
    env.rewind(moment)
    again = roll(env, 12)
    assert all(env_checker.data_equivalence(a, b, exact=True) for a, b in zip(first, again, strict=True))
    obs = env.rewind(moment)
    branch = env.step(np.full((3, 1), -1.0, np.float32))
    assert obs.shape == branch[0].shape
    assert all(
        torch.equal(a, b) for a, b in zip(tree.leaves(moment.carry), tree.leaves(kept.carry), strict=True)
    )
    other = rain(3, horizon=7)
    other.rewind(moment)
    assert env_checker.data_equivalence(roll(other, 1)[0], first[0], exact=True)


def test_next_step_and_same_step_dream_the_same_first_episode() -> None:
    next_step, same_step = rain(1, autoreset_mode="NextStep"), rain(1, autoreset_mode="SameStep")
    for env in (next_step, same_step):
        env.reset(seed=4)
    for _ in range(12):
        action = np.full((1, 1), 0.0, np.float32)
        a, b = next_step.step(action), same_step.step(action)
        if a[2][0] or a[3][0]:
            assert np.array_equal(a[0][0], b[4]["final_obs"][0])
            assert next_step.step(action)[1][0] == 0.0
            break
        assert np.array_equal(a[0], b[0])
    assert a[2][0] or a[3][0]


def test_disabled_asks_for_a_reset() -> None:
    env = rain(2, horizon=1, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(gymnasium.error.ResetNeeded, match="before step"):
        env.step(env.action_space.sample())
    with pytest.raises(gymnasium.error.ResetNeeded, match="first reset"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset()
    assert env.step(env.action_space.sample())[3].all()
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"rows \[1\]"):
        env.step(env.action_space.sample())


def test_spaces_of_actions_follow_the_codec() -> None:
    spaces = [
        gymnasium.spaces.Discrete(3),
        gymnasium.spaces.MultiDiscrete([3, 2]),
        gymnasium.spaces.Box(np.float32([-1, 0]), np.float32([1, 2])),
    ]
    for space in spaces:
        assert action_space(ActionCodec.of(space)) == space


def test_a_multi_discrete_action_reaches_the_world() -> None:
    class Pair(CatchOracle):
        def step(self, state: State, action: torch.Tensor, temperature: float = 1.0) -> Prediction:
            return Prediction(state, action @ torch.tensor([1.0, 2, 4, 8, 16]))

    world = Pair()
    world.spaces = type(world.spaces)(world.spaces.obs, ActionCodec(5, groups=(3, 2)))
    env = DreamEnv(world, catches(1), 2, 9)
    env.reset(seed=0)
    assert env.step(np.array([[2, 0], [1, 1]]))[1].tolist() == [4 + 8, 2 + 16]


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (np.zeros((4, 1), np.float32), "shape"),
        (np.full((3, 1), np.nan, np.float32), "not finite"),
    ],
)
def test_wrong_actions_are_refused(actions: Any, words: str) -> None:
    env = rain(3)
    env.reset()
    with pytest.raises(ValueError, match=words):
        env.step(actions)


def test_an_action_out_of_range_is_refused_or_clipped() -> None:
    catch = DreamEnv(CatchOracle(), catches(1), 2, 9)
    catch.reset()
    with pytest.raises(ValueError, match="not in"):
        catch.step(np.array([0, 3]))
    env = rain(2)
    env.reset(seed=0)
    moment = env.moment()
    wide = env.step(np.full((2, 1), 50.0, np.float32))
    env.rewind(moment)
    assert env_checker.data_equivalence(env.step(np.ones((2, 1), np.float32)), wide, exact=True)


class Blind(CatchOracle):
    """An exact world that cannot draw."""

    def decode(self, state: State) -> Obs:
        raise Undecodable("no pictures here")


def test_what_cannot_be_is_refused_in_words() -> None:
    with pytest.raises(OneiroError, match='sees="feature"'):
        DreamEnv(Blind(), catches(1), 2, 9)
    env = DreamEnv(Blind(), catches(1), 2, 9, sees="feature", render_mode="rgb_array")
    env.reset()
    with pytest.raises(OneiroError, match="feature view"):
        env.render()
    with pytest.raises(ValueError, match="horizon"):
        rain(horizon=0)
    with pytest.raises(ValueError, match="num_envs"):
        rain(0)
    with pytest.raises(ValueError, match="'image', 'feature'"):
        rain(sees="pixels")
    with pytest.raises(ValueError, match="render_mode"):
        rain(render_mode="human")
    with pytest.raises(ValueError, match="temperature"):
        rain(temperature=-1.0)
    with pytest.raises(OneiroError, match="nowhere to begin"):
        DreamEnv(CatchOracle(), Carry(state=CatchOracle().start(0)), 2, 9)
    with pytest.raises(ValueError, match="reset_mask"):
        rain().reset(options={"reset_mask": np.array([1, 0, 0])})
    env = rain()
    env.close()
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        env.reset()


def test_gymnasiums_wrappers_of_vector_environments_work() -> None:
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(rain(4, autoreset_mode="SameStep"))
    env.reset(seed=0)
    env.action_space.seed(0)
    lengths: list[int] = []
    for _ in range(60):
        infos = env.step(env.action_space.sample())[4]
        if "episode" in infos:
            lengths += infos["episode"]["l"][infos["_episode"]].tolist()
    assert len(lengths) > 15
    assert max(lengths) <= 12
    assert min(lengths) > 1
