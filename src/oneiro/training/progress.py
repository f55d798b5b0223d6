"""`Progress`: a live display on a terminal, plain lines elsewhere; on stderr, first line at once.

vmc-takecover (demo) in runs/vmc-takecover-demo-0
device: CPU (no GPU in use): AMD EPYC 9354, 2 threads
stage 2/4 memory ━━━━━━━━━━━━━────────── 120/600  20%  0:12  left 0:48
updates 10.1/s  RAM 1.2 GB (peak 1.4)
world/nll 1.25  optim/grad_norm 0.31
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from oneiro.training.meter import Memory, Rates

_LIVE = 0.25  # seconds between two pictures
_BUSY = 150.0  # a picture that took d seconds is followed by at least 150 d without one: < 1 % of the time
_METRICS_SHOWN = 8


class Progress:
    """What the run is doing. Cheap enough to be told about every step."""

    def __init__(
        self,
        name: str,
        device: str,
        folder: Path | None = None,
        *,
        quiet: bool = False,
        every: float = 10.0,
        stream: TextIO | None = None,
    ) -> None:
        """`every`: seconds between plain lines where there is no terminal. `device` as in `pick_device`."""
        self.name, self.device, self.folder, self.every = name, device, folder, every
        self.quiet, self.stream = quiet, stream or sys.stderr
        self._live: Any = None
        self._began = time.monotonic()
        self._memory = Memory()
        self._stage: tuple[str, int, int, int] | None = None
        self._metrics: dict[str, Any] = {}
        self._rates = Rates()
        self._stage_began = self._next = self._began

    def __enter__(self) -> "Progress":
        if self.quiet:
            return self
        place = f" in {self.folder}" if self.folder else ""
        print(f"{self.name}{place}", file=self.stream, flush=True)
        print(f"device: {_device_line(self.device)}", file=self.stream, flush=True)
        if self.stream.isatty():
            self._open_live()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if self.quiet:
            return
        self._finish_stage()
        word = "finished" if kind is None else "left"
        self._memory.refresh()
        peak = f", peak RAM {self._memory.ram_peak / 1e9:.1f} GB"
        self._line(f"{word} after {_clock(time.monotonic() - self._began)}{peak}")
        if self._live is not None:
            self._live.stop()
            self._live = None

    def stage(self, name: str, index: int, count: int, total: int) -> None:
        """Begin stage `index` (from 0) of `count`, with `total` steps; 0: there is nothing to do."""
        self._finish_stage()
        self._stage = (name, index, count, total)
        self._rates, self._metrics = Rates(), {}
        self._stage_began = time.monotonic()
        self._next = 0.0

    def advance(
        self,
        n: int = 0,
        *,
        updates: int = 0,
        env_steps: int = 0,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Work was done. Bare `n` steps, with nothing else given, were found done: a resumed stage."""
        if n and not updates and not env_steps and metrics is None:
            self._rates.found(n)
        else:
            self._rates.add(steps=n, updates=updates, env_steps=env_steps)
        if metrics:
            self._metrics.update(metrics)
        if not self.quiet and time.monotonic() >= self._next:
            self._show()

    def note(self, text: str) -> None:
        """A line that stays."""
        if not self.quiet:
            self._line(text)

    def _show(self) -> None:
        began = time.monotonic()
        self._rates.sample()
        self._memory.refresh()
        if self._live is not None:
            self._live.update(self._picture(), refresh=True)
        elif self._stage is not None:
            self._line(self._plain())
        now = time.monotonic()
        self._next = now + max(_LIVE if self._live is not None else self.every, _BUSY * (now - began))

    def _finish_stage(self) -> None:
        """Leave one line about the stage that ends."""
        if self._stage is None or self.quiet:
            return
        self._rates.sample()
        self._memory.refresh()
        if self._stage[3]:
            self._line(self._plain(is_done=True))
        self._stage = None

    def _line(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

    def _plain(self, is_done: bool = False) -> str:
        assert self._stage is not None
        name, index, count, total = self._stage
        steps = self._rates.counts["steps"]
        share = f" {100 * steps / total:3.0f}%" if total else ""
        parts = [f"stage {index + 1}/{count} {name} {steps:.0f}/{total}{share}", *self._times(is_done)]
        return "  ".join([*parts, *self._speeds(), *self._latest()])

    def _times(self, is_done: bool = False) -> list[str]:
        assert self._stage is not None
        times = [_clock(time.monotonic() - self._stage_began)]
        left = None if is_done else self._rates.seconds_left(self._stage[3])
        if left is not None:
            times.append(f"left {_clock(left)}")
        return times

    def _speeds(self) -> list[str]:
        names = {"env_steps": "env steps", "updates": "updates"}
        speeds = [
            f"{text} {_number(self._rates.rate(name))}/s"
            for name, text in names.items()
            if self._rates.counts[name]
        ]
        speeds.append(f"RAM {self._memory.ram / 1e9:.1f} GB (peak {self._memory.ram_peak / 1e9:.1f})")
        return [*speeds, f"GPU {self._memory.gpu / 1e9:.1f} GB"] if self._memory.gpu else speeds

    def _latest(self) -> list[str]:
        shown = list(self._metrics.items())[:_METRICS_SHOWN]
        return [f"{name} {_number(float(value))}" for name, value in shown]

    def _open_live(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self.stream)
        if not console.is_terminal or console.is_dumb_terminal:
            return
        self._live = Live(
            console=console,
            auto_refresh=False,  # no thread: worker processes may be forked safely
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # never send piped output to the terminal
        )
        self._live.start()

    def _picture(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        if self._stage is None:
            return Text("")
        name, index, count, total = self._stage
        steps = self._rates.counts["steps"]
        grid = Table.grid(padding=(0, 1), expand=False)
        share = f"{100 * steps / total:.0f}%" if total else ""
        grid.add_row(
            Text(f"stage {index + 1}/{count}"),
            Text(name, style="bold"),
            ProgressBar(total=max(total, 1), completed=min(steps, total or 1), width=30),
            Text(f"{steps:.0f}/{total} {share}"),
            Text("  ".join(self._times())),
        )
        rows = [
            Text("  ".join(row), no_wrap=True, overflow="ellipsis")
            for row in (self._speeds(), self._latest())
        ]
        return Group(grid, *rows)


def _device_line(name: str) -> str:
    """The device in use; plainly said if it is the CPU although there is a GPU."""
    import torch  # takes seconds: after the first line

    from oneiro import runtime

    device = runtime.pick_device(name)
    line = runtime.describe_device(device)
    if device.type == "cpu":
        if torch.cuda.is_available():
            line += f"\nNOTE: {torch.cuda.get_device_name(0)} is idle; use it with --runtime.device=cuda"
        elif Path("/proc/driver/nvidia/version").exists():
            line += (
                f"\nNOTE: there is an NVIDIA GPU, but PyTorch {torch.__version__} cannot use it; install a "
                "build with CUDA from https://pytorch.org"
            )
    return line


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 and value == value and abs(value) < 1e12 else f"{value:.3g}"


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds + 0.5), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
