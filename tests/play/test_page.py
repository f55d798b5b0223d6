"""The page in headless Chromium: keys, rewinding, settings, starts, errors; skipped where there is no Chromium."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import BROWSER, Tab
from page import FRAME, LAST, LISTEN, NOTICE, READY, SHOWN, WHERE, pictures
from PIL import Image
from playing import Blind, Fast, Two, catch, dodge
from served import served

from oneiro.agent import Agent
from oneiro.behaviours.explore import HeldRandom
from oneiro.data import csgo
from oneiro.data.collect import play as collect
from oneiro.data.store import EpisodeStore
from oneiro.errors import OneiroError
from oneiro.play.doors import Doors
from oneiro.play.keys import code, key_map
from oneiro.play.played_run import PlayedRun
from oneiro.play.starts import Place, Replayed, Wandered
from oneiro.recipes import find

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
# The first picture from now on is unpacked when `letGo` is called.
HOLD = """(() => {
  const own = window.createImageBitmap;
  let count = 0;
  window.createImageBitmap = async (blob) => {
    const isFirst = !count++, bitmap = await own(blob);
    if (isFirst) await new Promise((resolve) => { window.letGo = resolve; });
    return bitmap;
  };
})()"""


def test_a_person_plays(tmp_path: Path) -> None:
    with served(dodge(Fast())) as (house, port), Tab(f"http://127.0.0.1:{port}/") as tab:
        tab.wait(READY)
        tab.click("#past_ends")
        tab.key("ArrowLeft")
        tab.wait(f"{FRAME} > 4")
        assert "left" in tab.js(WHERE)
        tab.key("ArrowLeft", down=False)
        tab.key("KeyP")
        tab.wait("document.getElementById('play').textContent.startsWith('play')")
        tab.wait("document.getElementById('speed').textContent.includes('frames/s')")
        last = tab.js(LAST)
        for _ in range(3):
            before = tab.js(FRAME)
            tab.key("Comma")
            tab.key("Comma", down=False)
            tab.wait(f"{FRAME} === {before - 1}")
        tab.key("Period")
        tab.wait(f"{LAST} === {last - 2}")  # the dream has branched
        tab.js("(() => { const k = document.getElementById('knob-moves'); k.value = 3; "
               "k.dispatchEvent(new Event('change')); })()")  # fmt: skip
        tab.wait("document.getElementById('knob-moves').nextSibling.textContent === '3'")
        tab.click("#suggest")
        tab.wait("document.querySelectorAll('#places img').length === 12")
        tab.click("#places button")
        tab.wait(f"{LAST} === 0")
        tab.key("KeyG")
        tab.wait("document.getElementById('agent').getAttribute('aria-pressed') === 'true'")
        tab.key("KeyP")
        tab.wait(f"{FRAME} > 2")
        assert "agent" in tab.js(WHERE)
        tab.key("KeyP")
        tab.click("#real")
        tab.wait("!document.querySelector('.panel.real').hidden")
        assert tab.js("getComputedStyle(document.querySelector('canvas')).imageRendering") == "pixelated"
        assert house.players == 1
        assert tab.problems == []
        tab.shot(tmp_path / "page.png")
    picture = np.asarray(Image.open(io.BytesIO((tmp_path / "page.png").read_bytes())).convert("RGB"))
    assert picture.shape[:2] == (900, 1280)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_keys_that_contradict_each_other_as_in_the_data_of_counter_strike() -> None:
    """Of opposite keys and of weapons the one pressed later does nothing."""
    recipe = find("diamond-video").build("csgo")
    keys = json.dumps(key_map(recipe.env, recipe.env.spaces().action).to_json())
    with served(catch()) as (_, port), Tab(f"http://127.0.0.1:{port}/") as tab:
        tab.wait(READY)
        for held in ("", "w s", "s w", "left right", "right left up", "1 2", "2 1 w", "2 3 1", "a w d s"):
            pressed = json.dumps([code(name) for name in held.split()])
            found = tab.js(
                "import('/keyboard.js').then(({ Keyboard }) => {"
                f"const keyboard = new Keyboard({keys}, document.createElement('div'), () => {{}});"
                f"for (const code of {pressed}) keyboard.down(code);"
                "return keyboard.action(); })"
            )
            assert found == csgo.encode(held.split()).tolist(), held


def test_a_picture_that_is_unpacked_late_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oneiro.play.pictures.RAW_BYTES", 0)
    with served(dodge()) as (_, port), Tab(f"http://127.0.0.1:{port}/") as tab:
        tab.wait(READY)
        tab.click("#past_ends")
        start = tab.js(SHOWN)
        tab.click("#step")
        tab.wait(f"{LAST} === 1 && {SHOWN} !== {start!r}")
        tab.js(HOLD)
        before = tab.js(SHOWN)
        tab.click("#step")
        tab.wait(f"{LAST} === 2 && window.letGo")
        assert tab.js(SHOWN) == before
        tab.click("#step")
        tab.wait(f"{LAST} === 3 && {SHOWN} !== {before!r}")
        second = tab.js(SHOWN)
        tab.js("letGo()")
        assert tab.js(f"new Promise((done) => setTimeout(() => done({SHOWN}), 100))") == second


def test_two_sliders_moved_at_once() -> None:
    with served(dodge(Two())) as (_, port), Tab(f"http://127.0.0.1:{port}/") as tab:
        tab.wait(READY)
        tab.js(LISTEN)
        tab.js(
            "(() => { for (const name of ['moves', 'wind']) { const k = document.getElementById(`knob-${name}`);"
            "k.value = 2; k.dispatchEvent(new Event('change')); } })()"
        )
        tab.wait("sent.length === 2")
        assert [message["knobs"] for message in tab.js("sent")] == [{"moves": 2}, {"moves": 2, "wind": 2}]


def test_a_horizon_that_is_typed() -> None:
    with served(dodge()) as (_, port), Tab(f"http://127.0.0.1:{port}/") as tab:
        tab.wait(READY)
        for typed, taken in (("1.5", "2"), ("-5", "1"), ("1e300", "100000"), ("50", "50")):
            found = tab.js(
                "(() => { const h = document.getElementById('horizon'); "
                f"h.value = '{typed}'; h.dispatchEvent(new Event('change')); return h.value; }})()"
            )
            assert found == taken
        tab.key("Period")
        tab.wait(f"{LAST} === 1")
        assert tab.js("document.getElementById('status').textContent") == "connected"


def replayed(folder: Path) -> PlayedRun:
    """`dodge` with three stored episodes."""
    run, store = dodge(), EpisodeStore(folder, ram=1 << 23)
    env = run.config.make()
    try:
        for episode in collect(
            env, Agent(None, HeldRandom(hold=(1,)).build(run.spaces)), range(3), seed=0, explore=True
        ):
            store.add(episode)
    finally:
        env.close()
    run.starts = Replayed(store)
    return run


def test_a_start_that_is_typed(tmp_path: Path) -> None:
    run = replayed(tmp_path)
    store: Any = run.starts.store  # type: ignore[union-attr]
    place = "document.getElementById('place').textContent"

    def go(tab: Tab, episode: str, row: str) -> None:
        for name, text in (("episode", episode), ("row", row)):
            tab.js(f"(() => {{ const f = document.getElementById('{name}'); f.focus(); f.select(); }})()")
            tab.call("Input.insertText", text=text)
            if not text:
                tab.js(f"document.getElementById('{name}').value = ''")
        tab.click("#place-form button")

    with served(run) as (_, port), Tab(f"http://127.0.0.1:{port}/") as tab:
        tab.wait(READY)
        tab.js(LISTEN)
        row = store.length(1) - 2
        go(tab, "1", str(row))
        tab.wait(f"{place} === 'Began in stored episode 1, row {row}.' && {LAST} === 0")
        stored = np.moveaxis(store.read(1).obs["image"][row], 0, -1)
        assert np.array_equal(pictures(tab)[0], stored)
        for episode, far, told in (
            ("99", "0", "there is no episode 99; the replay holds 0 to 2"),
            ("1", "9999", f"episode 1 has the rows 0 to {row + 1}, not 9999"),
            ("1e300", "0", "there is no episode 9007199254740991; the replay holds 0 to 2"),
        ):
            go(tab, episode, far)
            tab.wait(f"{NOTICE} === {told!r}")
            assert tab.js("document.getElementById('row').value") == far, "what was typed can be mended"
            assert f"row {row}" in tab.js(place), "the dream is still the one before"
        said = tab.js("sent.length")
        for episode, far in (("-1", "0"), ("1", "2.5"), ("", "3"), ("1", "")):
            go(tab, episode, far)  # the browser says what is wrong
            assert not tab.js("document.getElementById('place-form').checkValidity()")
        tab.key("KeyP")  # typed into a field
        assert tab.js("sent.length") == said
        go(tab, "0", "1")
        tab.wait(f"{place} === 'Began in stored episode 0, row 1.' && {NOTICE} === ''")
        tab.key("Period")
        tab.wait(f"{LAST} === 1")
        tab.key("KeyR")
        tab.wait(
            f"{LAST} === 0 && {place}.includes(`episode ${{document.getElementById('episode').value}}, row`)"
        )
        assert tab.problems == []


def test_taps_that_ask_for_no_step_are_forgotten() -> None:
    with served(dodge()) as (_, port), Tab(f"http://127.0.0.1:{port}/") as tab:

        def tap(code: str) -> None:
            tab.key(code)
            tab.key(code, down=False)

        def agent(pressed: str) -> None:
            tap("KeyG")
            tab.wait(f"document.getElementById('agent').getAttribute('aria-pressed') === '{pressed}'")

        tab.wait(READY)
        tab.click("#past_ends")
        agent("true")
        tap("ArrowLeft")  # while the agent acts
        agent("false")
        tap("Period")
        tab.wait(f"{LAST} === 1")
        assert "none" in tab.js(WHERE)
        tap("ArrowLeft")  # while the dream stands
        tap("Period")
        tab.wait(f"{LAST} === 2")
        assert "none" in tab.js(WHERE)
        tab.key("ArrowLeft")
        tap("Period")
        tab.wait(f"{LAST} === 3")
        assert "left" in tab.js(WHERE)


class Empty(Wandered):
    """Has no place."""

    def draw(self, random: np.random.Generator) -> Place:
        raise OneiroError("the replay is empty")


def test_why_no_dream_can_begin_stays_on_the_page() -> None:
    run = catch()
    run.starts = Empty(run.config, run.spaces.action)
    with served(run) as (_, port), Tab(f"http://127.0.0.1:{port}/") as tab:
        tab.wait("document.getElementById('status')?.textContent === 'no dream can begin'")
        notice = tab.js("document.getElementById('notice').textContent")
        assert notice == "the replay is empty. Reload the page to connect again."
        assert tab.problems == []


def test_dark_and_light() -> None:
    with served(catch()) as (_, port):
        grounds = []
        for dark in (True, False):
            with Tab(f"http://127.0.0.1:{port}/", dark=dark) as tab:
                tab.wait(READY)
                grounds.append(tab.js("getComputedStyle(document.body).backgroundColor"))
                tab.click("#theme")
                grounds.append(tab.js("getComputedStyle(document.body).backgroundColor"))
        assert grounds[0] == grounds[3] == "rgb(20, 22, 27)"
        assert grounds[1] == grounds[2] == "rgb(250, 249, 247)"


def test_the_token_and_the_feature_view() -> None:
    doors = Doors(token="correct horse")
    with served(catch(Blind()), doors=doors) as (_, port):
        with Tab(f"http://127.0.0.1:{port}/") as tab:
            tab.wait("document.getElementById('status')?.textContent === 'the token is wrong'")
        with Tab(f"http://127.0.0.1:{port}/#token=correct%20horse") as tab:
            tab.wait(READY)
            assert "cannot draw" in tab.js("document.getElementById('notice').textContent")
            assert tab.js("document.querySelector('.panel canvas').width") == 8
