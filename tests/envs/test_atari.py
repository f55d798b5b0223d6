import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ale_py")

from oneiro.envs.atari import AtariConfig, find_game
from oneiro.envs.atari_presets import PRESETS
from oneiro.envs.image import area, bilinear
from oneiro.errors import MissingExtra, OneiroError
from oneiro.evaluation.published import lookup
from oneiro.spaces import Spaces
from oneiro.training.recipe import restore, to_json


def play(env, seed, steps=60, policy=0):
    rng = np.random.default_rng(policy)
    obs, _ = env.reset(seed=seed)
    images, rewards = [obs["image"]], []
    for _ in range(steps):
        obs, reward, terminated, truncated, _ = env.step(int(rng.integers(env.action_space.n)))
        images.append(obs["image"])
        rewards.append(reward)
        if terminated or truncated:
            break
    return np.stack(images), rewards


@pytest.fixture(scope="module")
def breakout():
    return AtariConfig(game="breakout", preset="storm", size=32).env()


def lose_a_life(env, limit=400):
    """Steps until a life is lost; returns what that step returned."""
    for step in range(limit):
        arrived = env.step(1 if step % 10 == 0 else 0)
        if arrived[2] or arrived[3] or arrived[4]["terminal"]:
            return arrived
    raise AssertionError("no life was lost")


def test_an_episode_is_a_function_of_its_seed(breakout):
    first = play(breakout, 5)
    play(breakout, 6)
    again, elsewhere = play(breakout, 5), play(AtariConfig(game="breakout", preset="storm", size=32).env(), 5)
    for repeat in (again, elsewhere):
        assert np.array_equal(repeat[0], first[0])
        assert repeat[1] == first[1]
    assert any(not np.array_equal(play(breakout, seed)[0], first[0]) for seed in (6, 7))  # sticky actions


def test_games_whose_reset_leaks_begin_alike():
    env = AtariConfig(game="kung_fu_master", noops=(0, 0), size=32).env()
    first = play(env, 0)[0]
    play(env, 0, 300, policy=1)
    assert np.array_equal(play(env, 0)[0], first)


def test_noops_are_drawn_within_their_range():
    env = AtariConfig(game="breakout", noops=(2, 4), size=16).env()
    counts = set()
    for seed in range(20):
        env.reset(seed=seed)
        counts.add(env.ale.getEpisodeFrameNumber())
    assert counts == {2, 3, 4}


def test_sticky_frames_repeat_the_last_action(breakout):
    env = AtariConfig(game="pong", sticky=0.25, noops=(0, 0), size=16).env()
    codes = []
    act = env.ale.act
    env.ale = _Recorder(env.ale, codes)
    env.reset(seed=0)
    for step in range(300):
        env.step([2, 3][step % 2])
    env.ale = env.ale.ale
    assert act is not None
    told = np.repeat([env.codes[[2, 3][step % 2]] for step in range(300)], 4)
    first = np.array(codes[0::4])
    assert abs((first != told[0::4]).mean() - 0.25) < 0.07  # first frame: still the action before
    assert abs((np.array(codes[1::4]) != told[1::4]).mean() - 0.25**2) < 0.04


class _Recorder:
    """An emulator that notes the code of every frame."""

    def __init__(self, ale, codes):
        self.ale, self.codes = ale, codes

    def act(self, code):
        self.codes.append(code)
        return self.ale.act(code)

    def __getattr__(self, name):
        return getattr(self.ale, name)


def test_a_lost_life_ends_flags_or_passes(breakout):
    breakout.reset(seed=0)
    _, _, terminated, truncated, info = lose_a_life(breakout)
    assert (terminated, truncated, info["terminal"]) == (False, False, True)
    assert not breakout.step(0)[4]["terminal"]

    for after, moved in (("same", 0), ("noop", 4)):
        env = AtariConfig(game="breakout", noops=(0, 0), life="end", after_life=after, size=32).env()
        env.reset(seed=0)
        obs, _, terminated, _, _ = lose_a_life(env)
        frames = env.ale.getEpisodeFrameNumber()
        assert terminated
        begun, info = env.reset(seed=1)
        assert info["lives"] == 4  # the same game
        assert env.ale.getEpisodeFrameNumber() - frames == moved
        if after == "same":
            assert np.array_equal(begun["image"], obs["image"])
        while env.ale.lives():
            lose_a_life(env)
            last = env.ale.getEpisodeFrameNumber()
            _, info = env.reset(seed=1)
            if env.ale.getEpisodeFrameNumber() < last:
                break
        assert info["lives"] == 5  # a new one


def test_limits_truncate_or_terminate():
    for terminal in (False, True):
        env = AtariConfig(game="pong", noops=(0, 0), limit=10, limit_is_terminal=terminal, size=16).env()
        env.reset(seed=0)
        ends = [env.step(0)[2:4] for _ in range(3)]
        assert ends == [(False, False), (False, False), (terminal, not terminal)]
        assert env.ale.getEpisodeFrameNumber() == 10
        env.reset(seed=0)
        assert env.step(0)[2:4] == (False, False)


def test_fire_begins_the_game_and_every_life():
    shown = {}
    for fire in ("never", "start", "life"):
        env = AtariConfig(game="breakout", noops=(0, 0), fire=fire, size=32).env()
        env.reset(seed=0)
        lives = [env.step(0)[4]["lives"] for _ in range(80)]
        shown[fire] = lives[-1]
    assert shown["never"] == 5  # without FIRE no ball
    assert shown["start"] == 4  # one ball
    assert shown["life"] < 4


def test_stack_pool_and_rewards(monkeypatch):
    env = AtariConfig(game="breakout", preset="twm-test", size=32).env()
    obs, _ = env.reset(seed=0)
    assert obs["image"].shape == (4, 32, 32)
    assert (obs["image"] == obs["image"][:1]).all()
    nxt = env.step(2)[0]["image"]
    assert np.array_equal(nxt[:3], obs["image"][1:])
    assert not np.array_equal(nxt[3], nxt[2])
    order = {}
    for first in (True, False):
        env = AtariConfig(game="ms_pacman", pool_first=first, noops=(0, 0)).env()
        order[first] = play(env, 0, 90)[0].astype(int)
    difference = np.abs(order[True] - order[False])
    assert difference.max() > 0
    assert difference.mean() < 1
    raw = play(AtariConfig(game="ms_pacman", noops=(0, 0), size=16).env(), 0, 90)[1]
    sign = play(AtariConfig(game="ms_pacman", noops=(0, 0), size=16, reward="sign").env(), 0, 90)[1]
    assert max(raw) >= 10
    assert np.sign(raw).tolist() == sign


def test_presets_are_values_that_can_be_changed_one_by_one():
    config = AtariConfig(preset="storm")
    assert config.protocol == PRESETS["storm"]
    assert AtariConfig(preset="storm", sticky=0.0).protocol.sticky == 0
    again = restore(AtariConfig(), to_json(AtariConfig(preset="iris", noops=(3, 4))))
    assert again == AtariConfig(preset="iris", noops=(3, 4))
    assert "with other sticky" in AtariConfig(preset="storm", sticky=0.0).describe()
    assert "sticky 0.25" in config.describe()
    assert (config.frames_per_step, AtariConfig(skip=2).frames_per_step) == (4, 2)
    for name, preset in PRESETS.items():
        assert AtariConfig(preset=name).protocol == preset


def test_the_documentation_lists_every_preset():
    text = (Path(__file__).parents[2] / "docs" / "environments.md").read_text()
    table = text.split("<!-- presets -->")[1].split("<!-- /presets -->")[0]
    rows = {row.split("`")[1]: row for row in table.splitlines() if row.startswith("| `")}
    assert rows.keys() == PRESETS.keys()
    for name, preset in PRESETS.items():
        for fact in (
            f"{preset.size} {preset.colour}",
            preset.resize,
            f"| {preset.sticky:g} |",
            preset.actions,
        ):
            assert fact in rows[name], (name, fact)
        limit = f"{preset.limit:,}" if preset.limit else "none"
        assert rows[name].endswith(f"| {limit}{', terminal' * preset.limit_is_terminal} |")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_keeps_to_its_spaces(preset):
    env = AtariConfig(game="pong", preset=preset).env()
    obs, _ = env.reset(seed=1)
    assert env.observation_space.contains(obs)
    assert env.observation_space.contains(env.step(0)[0])


def test_games_are_found_however_they_are_written():
    names = ("ms_pacman", "MsPacman", "ALE/MsPacman-v5", "ms-pacman")
    assert {AtariConfig(game=name).game for name in names} == {"ms_pacman"}
    assert AtariConfig(game="UpNDown").game == find_game("upndown") == "up_n_down"
    assert AtariConfig(game="Qbert").benchmark == "atari100k/qbert"
    for preset in PRESETS:
        suite = "atari200m" if preset in ("dreamer-200m", "dreamerv2") else "atari100k"
        assert AtariConfig(game="Qbert", preset=preset).benchmark == f"{suite}/qbert"
    assert lookup("atari200m/qbert") is None  # no figure of 100k frames stands beside a run of 200 million
    with pytest.raises(OneiroError, match="Did you mean 'breakout'"):
        AtariConfig(game="braekout").make()
    with pytest.raises(OneiroError, match="Known: adventure"):
        AtariConfig(game="zzzzzzzz").spaces()


@pytest.mark.parametrize(
    "values", [{"preset": "stormy"}, {"sticky": 1.5}, {"noops": (3, 1)}, {"colour": "red"}, {"skip": 0}]
)
def test_bad_fields_are_named(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        AtariConfig(**values)


def test_several_at_once_and_without_the_extra(monkeypatch):
    config = AtariConfig(game="pong", num=2, size=16)
    env = config.make()
    try:
        assert Spaces.of(env) == config.spaces()
        assert config.spaces().action.dim == 6
        obs = env.reset_rows(np.ones(2, bool), np.array([1, 1]))
        assert np.array_equal(obs["image"][0], obs["image"][1])
    finally:
        env.close()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"oneiro\[atari\]"):
        config.make()
    monkeypatch.setitem(sys.modules, "ale_py", None)


def test_area_is_a_mean_of_areas():
    frame = np.zeros((3, 3), np.uint8)
    frame[1, 1] = 90
    assert area(frame, 2).tolist() == [[10, 10], [10, 10]]  # a quarter of the middle in each of 2.25
    assert area(np.arange(16, dtype=np.uint8).reshape(4, 4), 2).tolist() == [[2, 4], [10, 12]]  # half to even
    assert area(np.full((210, 160, 3), 7, np.uint8), 64).tolist() == np.full((64, 64, 3), 7).tolist()
    with pytest.raises(ValueError, match="cannot enlarge"):
        area(frame, 4)
    assert bilinear(frame, 3) is frame
