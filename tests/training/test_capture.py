"""The lever `capture`: an update can be traced as a whole, and then does what it does otherwise.

CUDA graphs need a GPU. What they need of the code, one graph without a break in it, is tested here by the same tracer.
"""

import json
import subprocess
import sys
from pathlib import Path

from oneiro import runtime
from oneiro.runtime import RuntimeConfig

SCRIPT = Path(__file__).with_name("captured_update.py")


def test_updates_are_traced_without_a_break():
    names = ["dreamerv3_gym", "dreamerv3_minigrid", "dreamerv3_2023_gym"]
    done = subprocess.run([sys.executable, SCRIPT, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert list(found) == names
    for apart in found.values():
        assert apart["moved"] > 1e-6
        assert apart["weights"] < 1e-3 * apart["moved"]
        assert apart["metrics"] < 1e-4


def test_without_a_gpu_the_lever_says_why_it_is_off(monkeypatch):
    monkeypatch.setattr(runtime, "_report", None)
    report = runtime.start(RuntimeConfig(device="cpu", capture=True))
    assert report.levers["capture"] == "off: there are no CUDA graphs on cpu"
    assert runtime.captured(len) is len
