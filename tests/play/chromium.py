"""A tab of headless Chromium, driven through its DevTools socket."""

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Tab:
    """A context manager. `width` below 600 pixels is a phone."""

    def __init__(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = True) -> None:
        self.url, self.size, self.dark = url, (width, height), dark
        self.problems: list[Any] = []
        self._ids = itertools.count(1)
        self._stack = ExitStack()

    def __enter__(self) -> "Tab":
        assert BROWSER
        profile = self._stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        process = subprocess.Popen(
            [BROWSER, *options, f"--user-data-dir={profile}", "about:blank"],
            stderr=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(_end, process)
        assert process.stderr
        line = next(line for line in process.stderr if "DevTools listening on" in line)
        host = line.split()[-1].split("/")[2]
        with urllib.request.urlopen(f"http://{host}/json/list", timeout=30) as answer:
            (page,) = [target for target in json.load(answer) if target["type"] == "page"]
        self._socket = self._stack.enter_context(connect(page["webSocketDebuggerUrl"], max_size=None))
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        width, height = self.size
        is_phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if is_phone else 1, mobile=is_phone,
        )  # fmt: skip
        self.call("Emulation.setTouchEmulationEnabled", enabled=is_phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if self.dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=self.url)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            self._note(message)

    def js(self, code: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, code: str, seconds: float = 40.0) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.js(f"Boolean({code})"):
                return
            time.sleep(0.05)
        raise AssertionError(f"did not become true: {code}; notice: {self.js(NOTICE)!r}")

    def key(self, code: str, down: bool = True) -> None:
        """Press or let go a key."""
        key = code if code.startswith("Arrow") else code.removeprefix("Key").lower()
        self.call("Input.dispatchKeyEvent", type="keyDown" if down else "keyUp", code=code, key=key)

    def click(self, selector: str) -> None:
        """A click on an element."""
        self.js(f"document.querySelector({selector!r}).click()")

    def shot(self, path: Path) -> None:
        """A screenshot as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        is_thrown = message.get("method") == "Runtime.exceptionThrown"
        entry = message.get("params", {}).get("entry", {})
        if is_thrown or entry.get("level") == "error":
            self.problems.append(message["params"])


NOTICE = "document.getElementById('notice')?.textContent"


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    process.wait(20)
    if process.stderr:
        process.stderr.close()
