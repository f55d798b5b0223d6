from pathlib import Path

import numpy as np
import pytest
from ball_world import LIFE, Ball, Right, begin, episode
from PIL import Image

from oneiro.agent import Agent
from oneiro.evaluation import film as films
from oneiro.evaluation.animation import Film
from oneiro.evaluation.canvas import GAP, NOTE, PAPER, TITLE, Panel, action_name, difference, draw
from oneiro.evaluation.film import (
    Style,
    agent_in_dream,
    agent_in_env,
    dream_at_temperatures,
    open_loop_film,
    open_loop_strip,
    real_episode,
)
from oneiro.evaluation.open_loop import open_loop

STYLE = Style(scale=4, names=("left", "none", "right"), unit="tics", fps=10)


def noise(frames, size=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, size, size, 3), np.uint8)


def top_left(frame, column=0, scale=4, size=16):
    """The picture of a panel of the first row, at its own size again."""
    x, y = GAP + column * (size * scale + GAP), GAP + TITLE
    return frame[y : y + size * scale : scale, x : x + size * scale : scale].transpose(2, 0, 1)


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_files_open_with_all_frames_at_their_speed(tmp_path, kind):
    path = Film(frames=noise(7), fps=8, hold=1.0).save(tmp_path / "video" / f"film.{kind}")
    with Image.open(path) as image:
        assert (image.format.lower(), image.n_frames, image.size) == (kind, 7, (48, 48))
        image.load()
        assert image.info["duration"] == pytest.approx(125, abs=5)
        image.seek(6)
        image.load()
        assert image.info["duration"] == pytest.approx(1125, abs=5)
        assert image.info["loop"] == 0
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_film_keeps_to_its_budget_by_dropping_frames_at_the_same_speed():
    film = Film(frames=noise(16), fps=8, hold=0)
    data = film.encode(budget=8_000)
    assert len(data) <= 8_000 < len(film.encode())
    thin = film.thinned(4)
    assert (thin.frames == film.frames[[0, 4, 8, 12, 15]]).all()
    assert thin.fps == 2


@pytest.mark.parametrize("frames", [np.zeros((2, 3, 8, 8), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)])
def test_frames_of_another_form_are_refused(frames):
    with pytest.raises(ValueError, match="frame"):
        Film(frames=frames)
    with pytest.raises(ValueError, match=r"as \.webp or \.gif"):
        Film(frames=noise(1)).save(Path("film.mp4"))


def test_pixels_are_enlarged_without_blur():
    image = episode().obs["image"][3]
    frame = draw([[Panel(image=image, title="t", note="n", bar=0.5)]], 4)
    assert (top_left(frame) == image).all()
    x, y = GAP, GAP + TITLE
    block = frame[y : y + 64, x : x + 64].reshape(16, 4, 16, 4, 3)
    assert (block == block[:, :1, :, :1]).all()
    assert tuple(frame[0, 0]) == tuple(int(PAPER[i : i + 2], 16) for i in (1, 3, 5))


def test_long_films_skip_steps_but_never_the_last():
    assert sorted(Style(max_frames=4).shown(10)) == [0, 3, 6, 9]
    assert sorted(Style(max_frames=4).shown(11)) == [0, 3, 6, 9, 10]
    assert Style().shown(300) == set(range(300))
    film = real_episode(Agent(Ball(), Right()), episode(), style=Style(scale=4, max_frames=5))
    assert len(film.frames) == 5
    assert (top_left(film.frames[1]) == episode().obs["image"][3]).all()


def test_actions_are_named():
    names = ("left", "none", "right")
    assert action_name(np.array([0.1, 0.2, 0.9]), names) == "right"
    assert [action_name(np.array([a]), names) for a in (-0.5, 0.2, 0.4)] == ["left", "none", "right"]
    assert action_name(np.array([0.25, -1.0]), ()) == "+0.2 -1.0"


def test_arrows_point_where_the_action_goes():
    image = np.zeros((3, 16, 16), np.uint8)
    frames = [draw([[Panel(image=image, action=name)]], 4, has_bar=False) for name in ("left", "right")]
    notes = [frame[-GAP - NOTE :, GAP : GAP + 20] for frame in frames]
    assert notes[0].max() > 200
    assert np.abs(notes[0][:, ::-1].astype(int) - notes[1]).mean() < 2  # mirrored, but for one pixel column
    assert not (notes[0] == notes[1]).all()


def test_difference_is_black_where_nothing_differs():
    truth = episode().obs["image"]
    assert difference(truth, truth).max() == 0
    assert difference(255 - truth, truth).min() > 0
    assert difference(truth[None, 1:], truth[None, :-1]).shape == (1, 12, 3, 16, 16)


def test_dreams_are_shown_until_each_has_ended():
    starts = begin(3)
    starts.state["age"][1] = 8
    film = agent_in_dream(Agent(Ball(), Right()), starts, 100, style=STYLE)
    assert len(film.frames) == LIFE + 1
    assert (top_left(film.frames[3], 0) == Ball().decode(_at(8, 3))["image"][0].numpy() * 255).all()
    ended = top_left(film.frames[6], 1)
    assert ended.max() < 255  # dimmed
    assert (top_left(film.frames[-2], 1) == ended).all()
    assert (starts.state["age"] == _at(0, 0)["age"]).sum() == 2  # not consumed
    assert len(agent_in_dream(Agent(Ball(), Right()), starts, 5, style=STYLE).frames) == 6


def _at(x, age):
    state = begin(1).state
    return {**state, "x": state["x"] * 0 + x, "age": state["age"] + age}


def test_one_panel_for_each_temperature():
    film = dream_at_temperatures(Agent(Ball(), Right()), begin(2), 30, (0.1, 1.0, 1.9), style=STYLE)
    assert film.size[0] == GAP + 3 * (64 + GAP)
    assert (top_left(film.frames[8], 0) == top_left(film.frames[8], 1)).all()
    assert not (top_left(film.frames[8], 0) == top_left(film.frames[8], 2)).all()


def test_a_real_episode_beside_what_the_world_saw_and_expected():
    one = episode(4)
    film = real_episode(Agent(Ball(), Right()), one, style=STYLE)
    assert len(film.frames) == len(one)
    for t in range(len(one) - 1):
        for column in range(3):  # an exact world sees and expects the truth
            assert (top_left(film.frames[t], column) == one.obs["image"][t]).all()
    assert top_left(film.frames[-1], 0).max() < 255


def test_agent_in_env_plays_the_episode_asked_for(monkeypatch):
    asked = {}

    def play(env, agent, ids, *, seed, explore, record):
        asked.update(ids=list(ids), seed=seed, explore=explore, record=record)
        yield episode(ids[0])

    monkeypatch.setattr(films, "play", play)
    film = agent_in_env(None, Agent(Ball(), Right()), 9, id=3, explore=True, style=STYLE)
    assert asked == {"ids": [3], "seed": 9, "explore": True, "record": True}
    assert len(film.frames) == LIFE + 1


def test_open_loop_film_shows_truth_dream_and_their_difference():
    result = open_loop(Ball(), [episode(i) for i in range(3)], context=2, horizon=8)
    film = open_loop_film(result, count=2, style=STYLE)
    assert film.frames.shape[0] == 9
    assert (top_left(film.frames[4], 0) == result.truth[0, 4]).all()
    assert (top_left(film.frames[4], 1) == result.dream[0, 0, 4]).all()
    assert top_left(film.frames[4], 2).max() == 0


def test_a_strip_shows_the_truth_and_every_dream():
    result = open_loop(Ball(), [episode()], context=1, horizon=8)
    one = open_loop_strip({"a": result}, (0, 4, 8), scale=2)
    two = open_loop_strip({"a": result, "b": result}, (0, 4, 8), scale=2)
    assert two.shape[0] > one.shape[0]
    assert two.shape[1:] == one.shape[1:]
    pair = (one.shape[0] - 12) // 2  # rows of one kind of panel
    assert np.array_equal(one[38:70], one[38 + pair : 70 + pair])  # an exact dream looks like the truth
