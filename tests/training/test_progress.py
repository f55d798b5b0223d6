"""The first line comes at once, plain output stays plain, and telling about progress costs next to nothing."""

import io
import os
import subprocess
import sys
import time

import pytest
import torch

from oneiro.training.meter import Memory, Rates
from oneiro.training.progress import Progress


def test_plain_lines(tmp_path):
    stream = io.StringIO()
    with Progress("vmc (demo)", "cpu", tmp_path, every=0.0, stream=stream) as progress:
        first, device, *rest = stream.getvalue().splitlines()
        assert first == f"vmc (demo) in {tmp_path}"
        assert device.startswith("device: CPU")
        assert rest == [] or rest[0].startswith("NOTE")
        progress.stage("memory", 1, 4, 200)
        progress.advance(50)  # found done
        for _ in range(3):
            time.sleep(0.05)
            progress._next = 0.0
            progress.advance(1, updates=1, metrics={"world/kl": torch.tensor(0.125)})
        progress.advance(0, env_steps=7)
        progress.note("a note [bold]as it is[/bold]")
        progress.stage("nothing", 2, 4, 0)
    text = stream.getvalue()
    assert "stage 2/4 memory 50/200  25%" in text
    assert "stage 2/4 memory 53/200  26%" in text
    assert "world/kl 0.125" in text
    assert "updates" in text
    assert "env steps" in text
    assert "left 0:" in text
    assert "RAM" in text
    assert "a note [bold]as it is[/bold]" in text
    assert "nothing" not in text
    assert text.splitlines()[-1].startswith("finished after 0:00, peak RAM")
    assert "\x1b" not in text
    assert "\r" not in text


def test_plain_lines_are_rare_and_begin_at_once():
    stream = io.StringIO()
    with Progress("x", "cpu", stream=stream, every=3600) as progress:
        progress.stage("a", 0, 1, 1000)
        for _ in range(1000):
            progress.advance(1, updates=1)
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("stage")]
    assert [line.split("  ")[0] for line in lines] == ["stage 1/1 a 1/1000", "stage 1/1 a 1000/1000 100%"]


def test_quiet_and_left():
    stream = io.StringIO()
    with Progress("x", "cpu", stream=stream, quiet=True) as progress:
        progress.stage("a", 0, 1, 10)
        progress.advance(1)
        progress.note("n")
    assert stream.getvalue() == ""
    with pytest.raises(OSError, match="cable"), Progress("x", "cpu", stream=stream):
        raise OSError("cable")
    assert stream.getvalue().splitlines()[-1].startswith("left after")


def test_telling_costs_little():
    with Progress("x", "cpu", stream=io.StringIO()) as progress:
        progress.stage("a", 0, 1, 10**6)
        progress.advance(1, updates=1)
        began = time.perf_counter()
        for _ in range(20_000):
            progress.advance(1, updates=1)
        assert (time.perf_counter() - began) / 20_000 < 50e-6


LIVE = """
import sys, time, warnings
from oneiro.training.progress import Progress
shown = 0.0
with Progress("vmc (demo)", "cpu", "runs/x") as progress:
    show = progress._show
    def timed():
        global shown
        began = time.perf_counter()
        show()
        shown += time.perf_counter() - began
    progress._show = timed
    progress.stage("memory", 0, 2, 3000)
    progress.advance(1, updates=1)
    shown, began = 0.0, time.perf_counter()
    while time.perf_counter() - began < 2.0:
        time.sleep(0.001)
        progress.advance(1, updates=1, env_steps=4, metrics={"world/kl": 0.5})
    share = shown / (time.perf_counter() - began)
    progress.note("a note")
    print("to stderr", file=sys.stderr)
    print("result")
print(f"share {share:.4f}")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_live_display_on_a_terminal():
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(
        [sys.executable, "-c", LIVE], stdout=subprocess.PIPE, stderr=theirs, env=environment, text=True
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not piece:
                break
            seen += piece
        assert process.stdout is not None
        out = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0
    text = seen.decode()
    assert text.startswith("vmc (demo) in runs/x\r\ndevice: CPU")
    for expected in (
        "stage 1/2",
        "memory",
        "━",
        "left 0:",
        "updates",
        "env steps",
        "RAM",
        "world/kl 0.5",
        "a note",
    ):
        assert expected in text, expected
    assert "to stderr" in text
    assert "finished after" in text
    assert "\x1b[?25h" in text  # the cursor is shown again
    lines = out.splitlines()
    assert lines[0] == "result"  # stdout is a pipe and stays clean
    assert float(lines[1].split()[1]) < 0.02


def test_rates():
    now = [0.0]
    rates = Rates(clock=lambda: now[0])
    assert rates.seconds_left(10) is None
    rates.found(4)
    rates.sample()
    for now[0] in (1.0, 2.0):
        rates.add(steps=1, env_steps=8)
        rates.sample()
    assert rates.rate("steps") == 1.0
    assert rates.rate("env_steps") == 8.0
    assert rates.seconds_left(10) == 4.0
    for now[0] in range(3, 100):
        rates.sample()
    assert rates.rate("steps") == 0.0


def test_memory_includes_children():
    code = "x = bytearray(200_000_000); x[::4096] = b'1' * len(x[::4096]); print('held', flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        memory, alone = Memory(), Memory()
        memory.refresh()
        child.communicate("\n")
    alone.refresh()
    assert 180e6 < memory.ram - alone.ram < 320e6
    assert memory.ram_peak == memory.ram
