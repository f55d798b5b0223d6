"""The page in headless Chromium: two dreams side by side, their film as it is saved, the temperature."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import BROWSER, Tab
from page import FRAME, LAST, READY, boxes, pictures, step
from PIL import Image, ImageSequence
from playing import dodge
from served import served
from torch import Tensor

from oneiro.envs.toy import GRID
from oneiro.play.recording import GAP
from oneiro.testing import DodgeOracle
from oneiro.types import Prediction, State

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")


class Leaping(DodgeOracle):
    """The player moves twice as far, for twice the reward."""

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        before, prediction = state["player"], super().step(state, action, temperature)
        player = (2 * prediction.state["player"] - before).clamp(0, GRID - 1)
        return replace(prediction, state={**prediction.state, "player": player}, reward=2 * prediction.reward)


class Warm(DodgeOracle):
    """Its reward is the temperature."""

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        prediction = super().step(state, action, temperature)
        return replace(prediction, reward=0 * prediction.reward + temperature)


def column(picture: np.ndarray) -> int:
    """Where the player of `dodge` stands."""
    (found,) = np.flatnonzero(picture[-1, :: picture.shape[1] // GRID, 1])
    return int(found)


def first_step(tab: Tab) -> list[np.ndarray]:
    """Without a key; from now on the dreams wait for one. The pictures after it."""
    tab.click("#past_ends")
    shown = step(tab)
    tab.click("#waits")
    return shown


def facts(tab: Tab) -> list[str]:
    """The line below each dream."""
    return tab.js("[...document.querySelectorAll('.panel:not(.real) .facts')].map((f) => f.innerText)")


def test_two_dreams_side_by_side_are_led_by_the_same_actions() -> None:
    runs = dodge(name="walks"), dodge(Leaping(), "leaps")
    with served(*runs) as (_, port), Tab(f"http://127.0.0.1:{port}/") as tab:
        tab.wait(READY)
        walks, leaps = pictures(tab)
        assert np.array_equal(walks, leaps), "both begin in the same real frame"
        first_step(tab)
        captions = tab.js(
            "[...document.querySelectorAll('.panel:not([hidden]) figcaption')].map(c => c.textContent)"
        )
        assert captions == ["dream: walks", "dream: leaps"]
        left, right = boxes(tab, ".panel:not([hidden]) canvas")
        assert left["right"] < right["left"]
        assert (left["top"], left["width"]) == (right["top"], right["width"])
        start = column(walks)
        way, code = (-1, "ArrowLeft") if start > GRID // 2 else (1, "ArrowRight")
        for n in (1, 2, 3):
            walks, leaps = step(tab, code)
            assert (column(walks), column(leaps)) == (start + way * n, start + 2 * way * n)
        assert [text.startswith(f"reward {x}") for text, x in zip(facts(tab), ("1.00", "2.00"), strict=True)]
        tab.key("Comma")
        tab.wait(f"{FRAME} === 3")
        assert [column(picture) for picture in pictures(tab)] == [start + way * 2, start + way * 4]
        assert tab.problems == []


def saved(tab: Tab, folder: Path, kind: str) -> bytes:
    """The bytes of the file that a click on the button saves."""
    tab.click(f"#films button[data-kind={kind}]")
    tab.wait(f"document.getElementById('film-told').textContent.startsWith('dream.{kind}')")
    tab.wait("[...document.querySelectorAll('#films button')].every((button) => !button.disabled)")
    for _ in range(200):
        if (folder / f"dream.{kind}").exists():
            return (folder / f"dream.{kind}").read_bytes()
        tab.js("new Promise((done) => setTimeout(done, 50))")
    raise AssertionError(f"{kind} was not saved; there are {list(folder.iterdir())}")


def seen(data: bytes, kind: str) -> tuple[list[np.ndarray], float]:
    """Pictures of a film, and how many it shows a second."""
    if kind == "mp4":
        av: Any = pytest.importorskip("av")
        with av.open(io.BytesIO(data)) as film:
            rate = film.streams.video[0].average_rate
            return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)], float(rate)
    with Image.open(io.BytesIO(data)) as film:
        assert film.format == kind.upper()
        pages = [np.asarray(page.convert("RGB")) for page in ImageSequence.Iterator(film)]
        film.seek(0)
        film.load()
        return pages, 1000 / film.info["duration"]


def test_a_film_that_is_saved_shows_the_frames_that_were_played(tmp_path: Path) -> None:
    runs = dodge(name="walks"), dodge(Leaping(), "leaps")
    with served(*runs) as (_, port), Tab(f"http://127.0.0.1:{port}/") as tab:
        tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        tab.wait(READY)
        tab.js(
            "(() => { const f = document.getElementById('fps'); f.value = 10; f.dispatchEvent(new Event('input')); })()"
        )
        played = [
            pictures(tab),
            first_step(tab),
            *(step(tab, f"Arrow{way}") for way in ("Left", "Left", "Right", "Left")),
        ]
        tab.key("Comma")  # the film ends where the player is
        tab.wait(f"{FRAME} === 4")
        films = {kind: seen(saved(tab, tmp_path, kind), kind) for kind in ("gif", "webp", "mp4")}
        assert "frames 0 to 4," in tab.js("document.getElementById('film-told').textContent")
        assert tab.problems == []
    for kind, (pages, rate) in films.items():
        assert len(pages) == 5, kind
        assert rate == pytest.approx(10), kind
        side = (pages[0].shape[1] - GAP) // 2
        halves = [(page[:side, :side], page[:side, side + GAP :]) for page in pages]
        for lane in (0, 1):
            large = [
                shot[lane].repeat(side // len(shot[lane]), 0).repeat(side // len(shot[lane]), 1)
                for shot in played
            ]
            errors = np.array(
                [[np.abs(half[lane].astype(float) - x).mean() for x in large] for half in halves]
            )
            assert errors.argmin(1).tolist() == list(range(5)), (
                f"{kind}, dream {lane}: another frame than was played"
            )
            assert errors.min(1).max() < (6 if kind == "mp4" else 1), f"{kind}, dream {lane}"


def test_the_temperature_is_what_the_server_dreams_with() -> None:
    with served(dodge(Warm())) as (_, port), Tab(f"http://127.0.0.1:{port}/") as tab:
        tab.wait(READY)
        tab.click("#past_ends")
        step(tab)
        assert facts(tab)[0].startswith("reward 1.00")
        for share, value in ((1.0, "3"), (0.0, "0")):
            (box,) = boxes(tab, "#knob-temperature")
            x, y = box["left"] + 1 + share * (box["width"] - 2), box["top"] + box["height"] / 2
            for kind in ("mousePressed", "mouseReleased"):
                tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
            tab.wait(f"document.querySelector('#knob-temperature + output').textContent === '{value}'")
            step(tab)
            assert facts(tab)[0].startswith(f"reward {value}.00")
        tab.key("ArrowLeft")  # the keys are still the game's
        tab.key("Period")
        tab.wait(f"{LAST} === 4")
        assert "left" in tab.js("document.getElementById('where').textContent")
