"""The page in headless Chromium: keys, touch, rewinding, settings, errors; skipped where there is no Chromium."""

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from chromium import BROWSER, Tab
from PIL import Image
from playing import Blind, Fast, Two, catch, dodge
from served import served

from oneiro.data import csgo
from oneiro.errors import OneiroError
from oneiro.play.doors import Doors
from oneiro.play.keys import code, key_map
from oneiro.play.starts import Place, Wandered
from oneiro.recipes import find

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
FRAME = "Number(document.getElementById('frame').value)"
LAST = "Number(document.getElementById('frame').max)"
WHERE = "document.getElementById('where').textContent"
# Connected, and a frame is painted: before, a canvas is 300 pixels wide and what lies below it still moves.
READY = (
    "document.getElementById('status')?.textContent === 'connected' && "
    "![undefined, 300].includes(document.querySelector('.panel canvas')?.width)"
)

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
SHOWN = "document.querySelector('.panel canvas').toDataURL()"


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
        tab.js(
            "(() => { const own = WebSocket.prototype.send; window.sent = [];"
            "WebSocket.prototype.send = function (text) { sent.push(JSON.parse(text)); own.call(this, text); }; })()"
        )
        tab.js(
            "(() => { for (const name of ['moves', 'wind']) { const k = document.getElementById(`knob-${name}`);"
            "k.value = 2; k.dispatchEvent(new Event('change')); } })()"
        )
        tab.wait("sent.length === 2")
        assert [message["knobs"] for message in tab.js("sent")] == [{"moves": 2}, {"moves": 2, "wind": 2}]


def test_a_phone_a_game_that_waits_and_touch() -> None:
    with served(catch()) as (_, port), Tab(f"http://127.0.0.1:{port}/", width=390, height=844) as tab:
        tab.wait(READY)
        assert tab.js("document.documentElement.scrollWidth <= innerWidth")
        assert tab.js("document.getElementById('waits').checked"), (
            "catch has no action known as doing nothing"
        )
        tab.click("#past_ends")
        tab.wait(
            "document.querySelectorAll('.panel canvas').length > 1 && document.querySelector('#keys button')"
        )
        box = "document.querySelector('#keys button').getBoundingClientRect()"
        assert tab.js(f"{box}.height") >= 44, "large enough for a finger"
        for n in (1, 2):
            tab.js("document.querySelector('#keys button').scrollIntoView()")  # plots may have moved it
            before = None
            while before != (before := (tab.js(f"{box}.x + 10"), tab.js(f"{box}.y + 10"))):
                time.sleep(0.2)  # until nothing moves any more
            x, y = before
            for kind in ("mousePressed", "mouseReleased"):
                tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
            tab.wait(f"{LAST} === {n}")
        assert tab.problems == []


def test_numbers_that_are_typed() -> None:
    with served(dodge()) as (_, port), Tab(f"http://127.0.0.1:{port}/") as tab:
        tab.wait(READY)
        for typed, taken in (("1.5", "2"), ("-5", "1"), ("1e300", "100000"), ("50", "50")):
            found = tab.js(
                "(() => { const h = document.getElementById('horizon'); "
                f"h.value = '{typed}'; h.dispatchEvent(new Event('change')); return h.value; }})()"
            )
            assert found == taken
        # at once: an answer to what was set before would put the present place back into the fields
        tab.js(
            "document.getElementById('row').value = 1e300; document.querySelector('#place-form button').click()"
        )
        tab.wait("document.getElementById('place').textContent.includes('row 9007199254740991')")
        tab.key("Period")
        tab.wait(f"{LAST} === 1")
        assert tab.js("document.getElementById('status').textContent") == "connected"


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
