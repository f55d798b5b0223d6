"""The page on a phone, in headless Chromium: nothing sticks out, fingers reach everything."""

import pytest
from chromium import BROWSER, Tab
from page import FRAME, LAST, NOTICE, READY, WHERE, boxes
from playing import Two, catch, dodge
from served import served

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
WIDE, HIGH, FINGER = 390, 844, 44
# Of each control that is seen: its name; where a finger can touch it, once the page is scrolled there; whether the
# finger then meets it.
CONTROLS = """[...document.querySelectorAll('button, input')].filter((e) => e.offsetParent).map((e) => {
  e.scrollIntoView({ block: 'center', behavior: 'instant' });
  const target = e.type === 'checkbox' ? e.closest('label') : e, box = target.getBoundingClientRect();
  const met = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return { name: e.id || e.title || e.textContent, ...box.toJSON(), isMet: target.contains(met) };
})"""


def phone(port: int, dark: bool = True) -> Tab:
    return Tab(f"http://127.0.0.1:{port}/", width=WIDE, height=HIGH, dark=dark)


def touch(tab: Tab, selector: str, *, at: float = 0.5, down: bool = True, up: bool = True) -> None:
    """A finger on an element, at a share of its width; `up` and `down`: does it come, does it go."""
    tab.js(
        f"document.querySelector({selector!r}).scrollIntoView({{ block: 'nearest', behavior: 'instant' }})"
    )
    before = None
    while before != (before := boxes(tab, selector)[0]):  # until nothing moves any more
        tab.js("new Promise((done) => setTimeout(done, 100))")
    place = {"x": before["x"] + 2 + at * (before["width"] - 4), "y": before["y"] + before["height"] / 2}
    if down:
        tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[place])
    if up:
        tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])


def test_nothing_sticks_out_and_fingers_reach_every_control() -> None:
    name = "a-run-with-a-name-longer-than-a-phone-is-wide-"
    with served(dodge(Two(), name + "0"), dodge(Two(), name + "1")) as (_, port), phone(port) as tab:
        tab.wait(READY)
        tab.click("#real")
        tab.wait("!document.querySelector('.panel.real').hidden")
        tab.click("#suggest")
        tab.wait("document.querySelectorAll('#places img').length === 12")
        # Not `innerWidth`: a page that is too wide makes a phone zoom out, and then all of it is inside.
        assert tab.js("document.documentElement.scrollWidth") == WIDE
        found = tab.js(CONTROLS)
        assert {"play", "frame", "knob-temperature", "knob-wind", "past_ends", "episode"} <= {
            x["name"] for x in found
        }
        for control in found:
            assert control["isMet"], control
            assert min(control["width"], control["height"]) >= FINGER, control
        for box in [*found, *boxes(tab, ".panel, .plot, .card")]:
            assert box["left"] >= 0, box
            assert box["right"] <= WIDE, box
        panels = boxes(tab, ".panel")
        assert min(panel["width"] for panel in panels) > 150
        assert panels[0]["top"] == panels[1]["top"] < panels[2]["top"], "the real game has the next row"
        assert tab.problems == []


def test_a_game_that_waits_takes_one_step_a_touch() -> None:
    with served(catch()) as (_, port), phone(port) as tab:
        tab.wait(READY)
        assert tab.js("document.getElementById('waits').checked"), "no action is known as doing nothing"
        touch(tab, "label:has(#past_ends)", at=0.9)
        tab.wait("document.getElementById('past_ends').checked")
        for n in (1, 2):
            touch(tab, "#keys button")
            tab.wait(f"{LAST} === {n}")
        assert tab.problems == []


def test_a_finger_that_stays_holds_the_key() -> None:
    with served(dodge()) as (_, port), phone(port) as tab:
        tab.wait(READY)
        touch(tab, "label:has(#past_ends)", at=0.9)
        touch(tab, "#keys button", up=False)
        tab.wait(f"{FRAME} > 5")
        assert "left" in tab.js(WHERE)
        touch(tab, "#keys button", down=False)
        tab.wait(f"{WHERE}.includes('none')")
        touch(tab, "#play")
        tab.wait("document.getElementById('play').textContent.startsWith('play')")
        touch(tab, "#frame", at=0.0)
        tab.wait(f"{FRAME} === 0")
        touch(tab, "#knob-temperature", at=1.0)
        tab.wait("document.querySelector('#knob-temperature + output').textContent === '3'")
        assert tab.problems == []


def in_sight(tab: Tab, selector: str) -> bool:
    """Whether all of an element is in the window, to a pixel."""
    (box,) = boxes(tab, selector)
    return box["top"] > -1 and box["bottom"] < HIGH + 1


def test_what_is_refused_is_seen_and_a_new_dream_too() -> None:
    with served(dodge(), environments=1) as (house, port), phone(port) as tab:
        tab.wait(READY)
        house.games = 1  # somebody else's
        touch(tab, "#real-row", at=0.9)
        tab.wait(f"{NOTICE}.includes('which is the limit')")
        assert in_sight(tab, "#notice")
        tab.js("document.getElementById('row').value = 41")
        touch(tab, "#place-form button")
        tab.wait(f"{NOTICE}.includes('0 to 40 steps of the real game, not 41')")
        assert in_sight(tab, "#notice")
        tab.js("document.getElementById('row').value = 7")
        touch(tab, "#place-form button")
        tab.wait("document.getElementById('place').textContent.endsWith('row 7.')")
        assert tab.js(NOTICE) == ""
        assert in_sight(tab, ".panel:not(.real)")
