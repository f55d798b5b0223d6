"""Start-up: the device, the seeds, and the levers that make PyTorch fast on this machine.

`start` is called once by every command. What each lever gains was measured (docs/speed.md); each can be
turned off by its field, or for a whole process by `ONEIRO_LEVERS=off` or `ONEIRO_LEVERS=-memory,-matmul`.

| lever         | what it does                                                                             |
|---------------|------------------------------------------------------------------------------------------|
| memory        | glibc keeps freed memory instead of handing pages back and faulting them in again        |
| matmul        | float32 matmuls through oneDNN, if a check against float64 shows that they stay float32  |
| bfloat16      | `compute_dtype` of convolutions and matmuls, where the hardware multiplies in bfloat16   |
| channels_last | convolutions keep colours innermost                                                      |
| capture       | an update is traced once and replayed as CUDA graphs; only if asked for, and on a GPU    |
"""

import ctypes
import gc
import os
import platform
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from oneiro.errors import OneiroError, nearest

LEVERS_VARIABLE = "ONEIRO_LEVERS"
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h
_MATMUL_TOLERANCE = 1e-5
FEW_ROWS = 8
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Which device and which levers; the defaults suit every machine."""

    device: str = "auto"  # auto = the first GPU, else the CPU
    threads: int = 0  # CPU threads of one operation; 0 = one per core
    memory: bool = True  # lever: keep freed memory (glibc Linux)
    matmul: bool = True  # lever: float32 matmul through oneDNN (CPU)
    bfloat16: bool = True  # lever: multiply in bfloat16 where the hardware does
    channels_last: bool = True  # lever: colours innermost in convolutions
    capture: bool = (
        False  # lever: losses and gradients of an update as CUDA graphs (GPU; tried on none so far)
    )

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ValueError(f"threads must be 0 (one per core) or more, got {self.threads}")

    def build(self) -> "Report":
        """Apply it: the same as `start(config)`."""
        return start(self)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is in effect after `start`."""

    device: torch.device
    threads: int
    compute_dtype: torch.dtype
    """Of convolutions and large matmuls; weights and everything else stay float32."""
    levers: dict[str, str]
    """Lever -> "on", or "off: reason"."""


_report: Report | None = None


def start(config: RuntimeConfig | None = None) -> Report:
    """Apply the levers to this process, once for every command; calling it again applies the new config."""
    global _report
    config = with_switches(config or RuntimeConfig(), os.environ.get(LEVERS_VARIABLE, ""))
    device = pick_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    levers = {
        "memory": _keep_memory() if config.memory else "off: switched off",
        "matmul": _fast_matmul(device, config.matmul),
        "bfloat16": _bfloat16(device) if config.bfloat16 else "off: switched off",
        "channels_last": "on" if config.channels_last else "off: switched off",
        "capture": _capture(device, config.capture),
    }
    _report = Report(
        device=device,
        threads=torch.get_num_threads(),
        compute_dtype=chosen_dtype(config),
        levers=levers,
    )
    return _report


def chosen_dtype(config: RuntimeConfig | None = None) -> torch.dtype:
    """What `start` takes for "auto"; nothing is applied."""
    config = with_switches(config or RuntimeConfig(), os.environ.get(LEVERS_VARIABLE, ""))
    is_fast = config.bfloat16 and _bfloat16(pick_device(config.device)) == "on"
    return torch.bfloat16 if is_fast else torch.float32


def wide_device(device: torch.device) -> torch.device:
    """Where float64 is computed for tensors of `device`: there, but on the CPU for Apple's GPUs, which lack it."""
    return torch.device("cpu") if device.type == "mps" else device


def report() -> Report | None:
    """What the last `start` of this process did; None before it."""
    return _report


def compute_dtype(name: Literal["auto", "float32", "bfloat16"] = "auto") -> torch.dtype:
    """The dtype of a config field; auto = what `start` found, float32 if it was not called."""
    if name == "auto":
        return _report.compute_dtype if _report else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


@contextmanager
def few_rows(rows: int, dtype: torch.dtype) -> Iterator[torch.dtype]:
    """The dtype in which a network best multiplies `rows` rows on the CPU; wraps the multiplications.

    For up to `FEW_ROWS` without a gradient it is float32 by PyTorch's own kernels: casting weights costs more than
    bfloat16 saves, and one product through oneDNN takes 20 to 25 us whatever its size (the plain one 4 to 7, one core).
    """
    is_elsewhere = _report is not None and _report.device.type != "cpu"
    if rows > FEW_ROWS or torch.is_grad_enabled() or is_elsewhere or torch.compiler.is_compiling():
        yield dtype
        return
    with _plain_products:
        yield torch.float32


class _PlainProducts:
    """PyTorch's own float32 kernels while any thread is inside: the switch is one for the process."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, ""

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.before = torch.get_float32_matmul_precision()
                torch.set_float32_matmul_precision("highest")
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                torch.set_float32_matmul_precision(self.before)


_plain_products = _PlainProducts()


def memory_format() -> torch.memory_format:
    """Of image tensors: channels-last unless that lever is off."""
    off = _report is not None and _report.levers["channels_last"] != "on"
    return torch.contiguous_format if off else torch.channels_last


def captures() -> bool:
    """Whether the lever `capture` is on."""
    return _report is not None and _report.levers["capture"] == "on"


def captured(function: Function) -> Function:
    """`function` traced and replayed as CUDA graphs if the lever `capture` is on, else as it is.

    What it returns is overwritten by the next call after `torch.compiler.cudagraph_mark_step_begin()`.
    """
    if not captures():
        return function
    return torch.compile(function, backend="cudagraphs", dynamic=False)  # type: ignore[return-value]


def with_switches(config: RuntimeConfig, switches: str) -> RuntimeConfig:
    """`config` with levers turned off by a string: "off" for all, "-memory,-matmul" for some, "" for none."""
    names = [f.name for f in fields(config) if f.type is bool]
    if switches in ("", "on"):
        return config
    chosen = names if switches == "off" else [part.strip().removeprefix("-") for part in switches.split(",")]
    for name in chosen:
        if name not in names:
            raise OneiroError(f"{LEVERS_VARIABLE}: there is no lever {name!r}. {nearest(name, names)}")
    return replace(config, **dict.fromkeys(chosen, False))


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is the first GPU if there is one. OneiroError if it is not there."""
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OneiroError(f"there is no device {name!r}; use auto, cpu, cuda, cuda:1 or mps") from error
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise OneiroError(
                f"the device {name!r} was asked for, but PyTorch {torch.__version__} sees {found} GPU(s); "
                "use --runtime.device=cpu, or install a PyTorch build for your GPU"
            )
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise OneiroError("the device 'mps' needs a Mac with Apple silicon; use --runtime.device=cpu")
    return device


def describe_device(device: torch.device | None = None) -> str:
    """One line for the user, so that nobody computes on the CPU unnoticed."""
    if device is None:
        device = _report.device if _report else pick_device()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"GPU {device.index or 0}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if device.type == "cpu":
        return f"CPU (no GPU in use): {cpu_name()}, {torch.get_num_threads()} threads"
    return f"{device.type}: {platform.processor() or platform.machine()}"


def cpu_name() -> str:
    """The processor's name as the operating system gives it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Instruction sets of the processor (Linux; empty elsewhere)."""
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def release_memory() -> None:
    """Give freed memory back to the system, which the lever `memory` keeps: between stages of a run."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if platform.system() == "Linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc
            libc.malloc_trim(0)


def _keep_memory() -> str:
    """Serve large blocks from the heap and keep its free top, up to 2 GiB or an eighth of the RAM."""
    if platform.system() != "Linux":
        return f"off: not needed on {platform.system()}"
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return "off: the C library is not glibc"
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    keep = min(2**31 - 1, ram // 8)
    options = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, keep), (_M_TOP_PAD, 64 * 2**20))
    if not all([libc.mallopt(option, value) for option, value in options]):
        return "off: the allocator refused"
    return "on"


def _fast_matmul(device: torch.device, wanted: bool) -> str:
    """oneDNN's float32 matmul, twice MKL's on some processors; on others "medium" would round to bfloat16."""
    torch.set_float32_matmul_precision("highest")
    if not wanted:
        return "off: switched off"
    if device.type != "cpu":
        return f"off: not needed on {device.type}"
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(256, 256, generator=generator)
    exact = a.double() @ a.double()
    torch.set_float32_matmul_precision("medium")
    error = ((a @ a).double() - exact).abs().max() / exact.abs().max()
    if error < _MATMUL_TOLERANCE:
        return "on"
    torch.set_float32_matmul_precision("highest")
    return f"off: this processor would round to {error:.0e}"


def _capture(device: torch.device, wanted: bool) -> str:
    if not wanted:
        return "off: not asked for (--runtime.capture True)"
    if device.type == "cuda":
        return "on"
    reason = f"there are no CUDA graphs on {device.type}"
    warnings.warn(
        f"capture was asked for, but {reason}: updates run as they are", RuntimeWarning, stacklevel=3
    )
    return f"off: {reason}"


def _bfloat16(device: torch.device) -> str:
    if device.type == "cuda":
        return "on" if torch.cuda.get_device_capability(device) >= (8, 0) else "off: this GPU lacks bfloat16"
    if device.type == "cpu" and cpu_flags() & {"avx512_bf16", "amx_bf16"}:
        return "on"
    return f"off: this {device.type} does not multiply in bfloat16"


def _cpuinfo(key: str) -> str:
    """First value of a key in /proc/cpuinfo; "" if there is none."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return ""
    lines = path.read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def measure_peak(device: torch.device | None = None, seconds: float = 0.3) -> dict[str, float]:
    """GFLOP/s of this machine: matrix product and 3x3 convolution, the best repetition.

    In float32, and in bfloat16 where the hardware multiplies in it: emulated, one product takes minutes.
    """
    device = device or torch.device("cpu")
    dtypes = (torch.float32, torch.bfloat16) if _bfloat16(device) == "on" else (torch.float32,)
    side, batch = (2048, 64) if device.type == "cpu" else (8192, 1024)
    found = {}
    for dtype in dtypes:
        name = str(dtype).removeprefix("torch.")
        a = torch.randn(side, side, device=device, dtype=dtype)
        x = torch.randn(batch, 64, 32, 32, device=device, dtype=dtype).to(memory_format=memory_format())
        weight = torch.randn(64, 64, 3, 3, device=device, dtype=dtype).to(memory_format=memory_format())
        found[f"gemm_{name}"] = 2 * side**3 / _best(lambda a=a: a @ a, device, seconds) / 1e9
        conv = _best(lambda x=x, weight=weight: torch.conv2d(x, weight, padding=1), device, seconds)
        found[f"conv_{name}"] = 2 * batch * 32**2 * 9 * 64**2 / conv / 1e9
    return found


def _best(function: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Seconds of the fastest of the repetitions that fit in `seconds`, at least three."""
    times: list[float] = []
    function()
    while len(times) < 3 or sum(times) < seconds:
        began = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times)
