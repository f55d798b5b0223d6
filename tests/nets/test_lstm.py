"""The fused sequence against the plain loop: values, gradients, resets, bfloat16."""

import pytest
import torch
from torch.nn import functional as F

from oneiro.nets.lstm import LSTM, sequence_reference


def example(rows: int, steps: int, inputs: int, width: int, dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    lstm = LSTM(inputs, width).to(dtype)
    torch.nn.init.normal_(lstm.bias)
    x, h, c = (
        torch.randn(shape, dtype=dtype) for shape in ((rows, steps, inputs), (rows, width), (rows, width))
    )
    reset = torch.rand(rows, steps) < 0.2
    reset[:, steps // 2] = True
    reset[0, 0] = True
    return lstm, x, h, c, reset


def grads(form, lstm, x, h, c, reset):
    x, h, c = (tensor.clone().requires_grad_() for tensor in (x, h, c))
    h_all, (h_last, c_last) = form(lstm, x, h, c, reset)
    torch.manual_seed(1)
    loss = sum((y * torch.randn(y.shape, dtype=y.dtype)).sum() for y in (h_all, h_last, c_last))
    return (h_all, h_last, c_last), torch.autograd.grad(loss, (x, h, c, lstm.kernel, lstm.bias))


@pytest.mark.parametrize("steps", [1, 7, 70])
@pytest.mark.parametrize("with_reset", [False, True])
def test_fused_equals_loop(steps: int, with_reset: bool):
    lstm, x, h, c, reset = example(3, steps, 5, 8, torch.float64)
    reset = reset if with_reset else None
    fast, slow = (grads(form, lstm, x, h, c, reset) for form in (LSTM.sequence, sequence_reference))
    torch.testing.assert_close(fast, slow)


def test_gradcheck():
    lstm, x, h, c, reset = example(2, 4, 3, 2, torch.float64)
    x, h, c = (tensor.requires_grad_() for tensor in (x, h, c))

    def run(x, h, c, kernel, bias):
        lstm.kernel.data, lstm.bias.data = kernel.data, bias.data
        h_all, (_, c_last) = torch.func.functional_call(
            Caller(lstm), {"lstm.kernel": kernel, "lstm.bias": bias}, (x, h, c, reset)
        )
        return h_all, c_last

    assert torch.autograd.gradcheck(run, (x, h, c, lstm.kernel, lstm.bias))


class Caller(torch.nn.Module):
    def __init__(self, lstm: LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, *args):
        return self.lstm.sequence(*args)


def test_a_reset_forgets_everything_before():
    lstm, x, h, c, _ = example(2, 6, 3, 4)
    reset = torch.zeros(2, 6, dtype=torch.bool)
    reset[0, 3] = True
    h_all, _ = lstm.sequence(x, h, c, reset)
    zero = torch.zeros(2, 4)
    fresh, _ = lstm.sequence(x[:, 3:], zero, zero)
    torch.testing.assert_close(h_all[0, 3:], fresh[0])
    assert (h_all[1, 3:] - fresh[1]).abs().min() > 0


@pytest.mark.parametrize("form", [LSTM.sequence, sequence_reference])
def test_a_reset_forgets_a_state_that_is_not_finite(form):
    lstm, x, h, c, _ = example(3, 4, 3, 4)
    h[1], c[1] = torch.nan, torch.inf
    reset = torch.zeros(3, 4, dtype=torch.bool)
    reset[1, 0] = reset[2, 3] = True
    values, gradients = grads(form, lstm, x, h, c, reset)
    assert all(y.isfinite().all() for y in (*values, *gradients))
    h[1], c[1] = 0.0, 0.0
    torch.testing.assert_close(grads(form, lstm, x, h, c, reset), (values, gradients))


def test_step_without_graph_equals_step():
    for dtype in (torch.float32, torch.float64):
        lstm, x, h, c, _ = example(4, 1, 3, 6, dtype)
        before = lstm.kernel.clone(), lstm.bias.clone(), h.clone(), c.clone()
        expected = lstm.step(x[:, 0], h, c)
        with torch.no_grad():
            torch.testing.assert_close(lstm.step(x[:, 0], h, c), expected)
        for kept, now in zip(before, (lstm.kernel, lstm.bias, h, c), strict=True):
            assert torch.equal(kept, now)


def test_backward_can_run_twice():
    lstm, x, h, c, reset = example(2, 5, 3, 4)
    h_all, _ = lstm.sequence(x, h, c, reset)
    first = torch.autograd.grad(h_all.sum(), lstm.kernel, retain_graph=True)
    torch.testing.assert_close(first, torch.autograd.grad(h_all.sum(), lstm.kernel))


def test_bfloat16_stays_close():
    lstm, x, h, c, reset = example(8, 40, 16, 32)
    exact, exact_grads = grads(LSTM.sequence, lstm, x, h, c, reset)
    lstm.compute_dtype = torch.bfloat16
    rounded, rounded_grads = grads(LSTM.sequence, lstm, x, h, c, reset)
    assert all(y.dtype == torch.float32 for y in (*rounded, *rounded_grads))
    assert (rounded[0] - exact[0]).abs().max() < 0.03
    rounded_step = torch.cat(lstm.step(x[:, 0], h, c))
    lstm.compute_dtype = torch.float32
    exact_step = torch.cat(lstm.step(x[:, 0], h, c))
    assert rounded_step.dtype == torch.float32
    assert 0 < (rounded_step - exact_step).abs().max() < 0.03
    for a, b in zip(rounded_grads, exact_grads, strict=True):
        assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.999
