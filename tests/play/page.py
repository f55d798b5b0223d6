"""What the tests read off the page."""

from typing import Any

import numpy as np
from chromium import Tab

FRAME = "Number(document.getElementById('frame').value)"
LAST = "Number(document.getElementById('frame').max)"
WHERE = "document.getElementById('where').textContent"
NOTICE = "document.getElementById('notice').textContent"
SHOWN = "document.querySelector('.panel canvas').toDataURL()"
# Connected, and a frame is painted: before, a canvas is 300 pixels wide and what lies below it still moves.
READY = (
    "document.getElementById('status')?.textContent === 'connected' && "
    "![undefined, 300].includes(document.querySelector('.panel canvas')?.width)"
)
# From now on what the page says is kept in `sent`.
LISTEN = """(() => {
  const own = WebSocket.prototype.send;
  window.sent = [];
  WebSocket.prototype.send = function (text) { sent.push(JSON.parse(text)); own.call(this, text); };
})()"""


def pictures(tab: Tab) -> list[np.ndarray]:
    """What is painted on the canvases of all panels that are seen, uint8 [H, W, 3] each."""
    found = tab.js(
        "[...document.querySelectorAll('.panel:not([hidden]) canvas')].map((c) => [c.height, c.width, "
        "[...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]])"
    )
    return [np.array(data, np.uint8).reshape(high, wide, 4)[..., :3] for high, wide, data in found]


def step(tab: Tab, code: str = "") -> list[np.ndarray]:
    """One step with a key held, or none; the pictures after it."""
    number = tab.js(FRAME) + 1
    if code:
        tab.key(code)
        tab.key(code, down=False)
    else:
        tab.click("#step")
    tab.wait(f"{LAST} === {number} && document.getElementById('play').textContent.startsWith('play')")
    return pictures(tab)


def boxes(tab: Tab, selector: str) -> list[dict[str, Any]]:
    """Where elements are, in pixels of the window."""
    return tab.js(
        f"[...document.querySelectorAll({selector!r})].map((e) => e.getBoundingClientRect().toJSON())"
    )
