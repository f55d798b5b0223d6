"""The estimate of an update on long sequences, from short ones."""

import pytest
import torch

from oneiro import runtime
from oneiro.recipes import find
from oneiro.training import estimate
from oneiro.training.run import build_agent


@pytest.fixture
def _restored_levers():
    yield
    torch.set_float32_matmul_precision("highest")
    runtime._report = None


@pytest.mark.usefixtures("_restored_levers")
def test_time_and_ram_grow_with_the_length(monkeypatch):
    recipe = find("vmc-takecover").build("smoke")
    runtime.start(recipe.runtime)
    agent = build_agent(recipe, recipe.env.spaces())
    stage = recipe.schedule.memory  # type: ignore[attr-defined]
    tried = []

    def linear(fitter, agent, size: int, length: int) -> float:
        tried.append(length)
        return 1.0 + 0.1 * length

    monkeypatch.setattr(estimate, "_try", linear)
    monkeypatch.setattr(estimate, "_peak", lambda: 2**40 if tried[-1:] == [32] else 0)
    peaks: list[float] = []
    assert estimate._update_seconds(stage, agent, peaks) == pytest.approx(1.0 + 0.1 * stage.batch.length)
    assert tried == [2, 32]
    assert max(peaks) == pytest.approx(2**40 * stage.batch.length / 32, rel=0.02)

    vision = recipe.schedule.vision  # type: ignore[attr-defined]
    tried.clear()
    assert estimate._update_seconds(vision, agent, []) == pytest.approx(1.1)
    assert tried == [1]
