"""What is installed and what this machine can do: `oneiro doctor`."""

import importlib.metadata
import platform
import re
import shutil
from typing import Any

import psutil
import torch

from oneiro import __version__, runtime
from oneiro.envs import libraries

_GIB = 2**30
_CORE = ("torch", "numpy", "gymnasium", "safetensors", "zstandard", "tyro", "rich")


def examine(*, peak: bool = True) -> dict[str, Any]:
    """Facts by topic, plain JSON values; `peak` also times matrix products and convolutions (some seconds)."""
    report = runtime.report() or runtime.start()
    facts: dict[str, Any] = {
        "oneiro": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver()) or 'other libc'}",
        "packages": {name: _version(name) or "missing" for name in _CORE},
        "extras": extras(),
        "device": runtime.describe_device(report.device),
        "threads": report.threads,
        "cores": psutil.cpu_count() or 1,
        "cpu_flags": sorted(runtime.cpu_flags() & _USEFUL_FLAGS),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "libraries": {name: _library(name) for name in libraries.FILES},
        "ram_gib": {
            "total": round(psutil.virtual_memory().total / _GIB, 1),
            "available": round(psutil.virtual_memory().available / _GIB, 1),
        },
        "disk_free_gib": round(shutil.disk_usage(".").free / _GIB, 1),
        "compute_dtype": str(report.compute_dtype).removeprefix("torch."),
        "levers": report.levers,
    }
    if peak:
        facts["peak_gflops"] = {k: round(v) for k, v in runtime.measure_peak(report.device).items()}
    return facts


_USEFUL_FLAGS = {"avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_tile", "bf16", "asimd"}


def extras() -> dict[str, str]:
    """Extra -> "installed", or the packages it lacks and the command that installs them."""
    try:
        requires = importlib.metadata.requires("oneiro") or []
    except importlib.metadata.PackageNotFoundError:
        return {"unknown": "oneiro is not installed as a package; pip install -e . makes its extras known"}
    wanted: dict[str, list[str]] = {}
    for line in requires:
        match = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", line)
        name = re.match(r"[\w.-]+", line)
        if match and name and name[0] != "oneiro":
            wanted.setdefault(match[1], []).append(name[0])
    states = {}
    for extra, packages in wanted.items():
        missing = [name for name in packages if _version(name) is None]
        remedy = f"missing {', '.join(missing)}: pip install 'oneiro[{extra}]'"
        states[extra] = remedy if missing else "installed"
    return states


def _library(name: str) -> str:
    """ "installed", or what it is for and the command that installs it."""
    if libraries.is_there(name):
        return "installed"
    return f"missing, for {libraries.USE[name]}: {libraries.remedy([name])}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
