"""CMA-ES: a resumed evolution repeats itself; draws share what they should."""

import pytest
import torch

from oneiro.errors import OneiroError
from oneiro.training.cma_es import CMA, Evolution, draws, mean_scores


def sphere(candidates: torch.Tensor) -> list[float]:
    return (-(candidates - 1).square().sum(1)).tolist()


def test_finds_the_optimum():
    evolution = Evolution(CMA(population=12, sigma=0.5), torch.zeros(5))
    for _ in range(80):
        evolution.tell(sphere(evolution.ask()))
    assert torch.allclose(evolution.mean, torch.ones(5), atol=0.01)


def test_resumes_exactly_from_its_scores():
    whole = Evolution(CMA(population=8), torch.zeros(4), seed=3)
    for _ in range(10):
        whole.tell(sphere(whole.ask()))
    first = Evolution(CMA(population=8), torch.zeros(4), seed=3)
    for _ in range(6):
        first.tell(sphere(first.ask()))
    second = Evolution(CMA(population=8), torch.zeros(4), first.history, seed=3)
    for _ in range(4):
        second.tell(sphere(second.ask()))
    assert torch.equal(second.mean, whole.mean)
    assert second.sigma == whole.sigma
    assert second.history == whole.history


def test_a_score_that_is_not_finite_is_refused():
    evolution = Evolution(CMA(population=4), torch.zeros(2))
    evolution.ask()
    with pytest.raises(OneiroError, match="not finite"):
        evolution.tell([1.0, float("nan"), 2.0, 3.0])


def test_draws():
    assert draws(4, 2, "common").tolist() == [0, 1] * 4
    assert draws(4, 2, "pairs").tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert draws(4, 2, "independent").tolist() == list(range(8))


def test_mean_scores():
    assert mean_scores(torch.tensor([1.0, 3.0, 10.0, 20.0]), 2) == [2.0, 15.0]
