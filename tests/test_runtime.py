"""Start-up levers: each can be turned off, and none changes results beyond float32 rounding."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from oneiro import runtime
from oneiro.errors import OneiroError
from oneiro.runtime import RuntimeConfig, with_switches


def python(code: str, **environment: str) -> str:
    """Run in a fresh process, because levers are process-wide."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_switches_turn_levers_off():
    config = with_switches(RuntimeConfig(), "-memory, -bfloat16")
    assert (config.memory, config.matmul, config.bfloat16, config.channels_last) == (False, True, False, True)
    off = with_switches(RuntimeConfig(), "off")
    assert (off.memory, off.matmul, off.bfloat16, off.channels_last) == (False,) * 4
    assert with_switches(RuntimeConfig(), "") == RuntimeConfig()
    with pytest.raises(OneiroError, match="memory"):
        with_switches(RuntimeConfig(), "-memmory")


def test_everything_off_leaves_pytorch_as_it_was():
    code = """
        import torch
        from oneiro import runtime
        report = runtime.start(runtime.RuntimeConfig(device="cpu"))
        print(torch.get_float32_matmul_precision(), report.compute_dtype, runtime.memory_format())
        print(all(value.startswith("off") for value in report.levers.values()))
    """
    assert python(code, ONEIRO_LEVERS="off").split() == [
        "highest",
        "torch.float32",
        "torch.contiguous_format",
        "True",
    ]


def test_float32_matmul_stays_float32():
    code = """
        import torch
        from oneiro import runtime
        runtime.start(runtime.RuntimeConfig(device="cpu"))
        a, b = torch.randn(512, 512), torch.randn(512, 512)
        exact = a.double() @ b.double()
        print(float(((a @ b) - exact).abs().max() / exact.abs().max()))
    """
    assert float(python(code)) < 1e-5


def test_kept_memory_stays_bounded():
    code = """
        import psutil, random, torch
        from oneiro import runtime
        runtime.start(runtime.RuntimeConfig(device="cpu"))
        process, chance = psutil.Process(), random.Random(0)
        before, live, peak = process.memory_info().rss, [], 0
        for _ in range(3000):
            live.append(torch.ones(chance.randrange(1, 8 * 2**20), dtype=torch.uint8))
            while sum(map(len, live)) > 200 * 2**20:
                live.pop(chance.randrange(len(live)))
            peak = max(peak, process.memory_info().rss - before)
        print(peak / 2**20)
    """
    assert float(python(code)) < 500


def test_devices():
    assert runtime.pick_device("cpu") == torch.device("cpu")
    with pytest.raises(OneiroError, match="there is no device"):
        runtime.pick_device("gpu")
    with pytest.raises(OneiroError, match="GPU"):
        runtime.pick_device("cuda:99")
    assert "threads" in runtime.describe_device(torch.device("cpu"))


def test_seed_everything():
    runtime.seed_everything(3)
    first = torch.rand(4)
    runtime.seed_everything(3)
    assert torch.equal(first, torch.rand(4))


def test_few_rows_are_multiplied_in_float32_and_the_setting_comes_back():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.no_grad(), runtime.few_rows(runtime.FEW_ROWS, torch.bfloat16) as dtype:
            assert (dtype, torch.get_float32_matmul_precision()) == (torch.float32, "highest")
        assert torch.get_float32_matmul_precision() == "medium"
        with torch.no_grad(), runtime.few_rows(runtime.FEW_ROWS + 1, torch.bfloat16) as dtype:
            assert (dtype, torch.get_float32_matmul_precision()) == (torch.bfloat16, "medium")
        with torch.enable_grad(), runtime.few_rows(1, torch.bfloat16) as dtype:
            assert dtype == torch.bfloat16
    finally:
        torch.set_float32_matmul_precision(before)


def test_two_threads_with_few_rows_leave_the_setting_as_it_was():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.no_grad():
            one, two = (runtime.few_rows(1, torch.bfloat16) for _ in range(2))
            one.__enter__()
            two.__enter__()
            one.__exit__(None, None, None)  # while the other is inside
            assert torch.get_float32_matmul_precision() == "highest"
            two.__exit__(None, None, None)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
