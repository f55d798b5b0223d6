"""The LSTM of World Models: TensorFlow's `BasicLSTMCell`, for sequences with resets in them.

    i, j, f, o = [x, h] @ kernel + bias                one bias; columns in this order
    c' = c * sigmoid(f + 1) + sigmoid(i) * tanh(j)     the +1 is added at run time
    h' = tanh(c') * sigmoid(o)

`LSTM.sequence` runs a fused form (`_Sequence`): one matmul projects the inputs of all steps, the gate maths is
in place on time-major buffers, and the backward pass is written out by hand. `sequence_reference` is the same
as a plain loop over `step`; tests compare the two.

*Deviations.* The released code resets, at a restart in mid-sequence, to the state *fed* at the start of the
batch; we reset to zero, which is what it means to do.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from oneiro.nets.packed import Product, packed, plain

FORGET_BIAS = 1.0
_CHUNK = 32  # steps whose gate gradients wait for one matmul

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


class LSTM(nn.Module):
    """One layer. Weights, states and gate maths are float32; matmuls run in `compute_dtype`."""

    def __init__(self, input_dim: int, hidden_dim: int, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.input_dim, self.hidden_dim = input_dim, hidden_dim
        self.compute_dtype = compute_dtype
        self.kernel = nn.Parameter(torch.empty(input_dim + hidden_dim, 4 * hidden_dim))
        self.bias = nn.Parameter(torch.empty(4 * hidden_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform kernel, zero bias."""
        nn.init.xavier_uniform_(self.kernel)
        nn.init.zeros_(self.bias)

    def step(
        self, x: Float[Tensor, "b i"], h: Float[Tensor, "b d"], c: Float[Tensor, "b d"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """One step: the next (h, c)."""
        both = torch.cat([x, h], -1)
        if not torch.is_grad_enabled():
            return lstm_step(plain(*self._step_weights()), both, c)
        dtype = self._dtype(x)
        gates = torch.addmm(self.bias.to(dtype), both.to(dtype), self.kernel.to(dtype))
        i, j, f, o = gates.to(c.dtype).chunk(4, -1)
        c = c * torch.sigmoid(f + FORGET_BIAS) + torch.sigmoid(i) * torch.tanh(j)
        return torch.tanh(c) * torch.sigmoid(o), c

    def step_product(self) -> Product:
        """What `lstm_step` multiplies with, for many steps: [x, h] -> gates in the compute dtype."""
        return packed(*self._step_weights())

    def _step_weights(self) -> tuple[Tensor, Tensor]:
        """Weight [4D, I + D] and bias in the compute dtype, the rows of j doubled, the +1 of f added."""
        with torch.no_grad():
            dtype, width = self._dtype(self.kernel), self.hidden_dim
            weight, bias = self.kernel.t().to(dtype, copy=True), self.bias.clone()
            weight[width : 2 * width] *= 2
            bias[width : 2 * width] *= 2
            bias[2 * width : 3 * width] += FORGET_BIAS
            return weight, bias.to(dtype)

    def _dtype(self, x: Tensor) -> torch.dtype:
        return self.compute_dtype if x.dtype == torch.float32 else x.dtype  # float64 in tests

    def sequence(
        self,
        x: Float[Tensor, "b t i"],
        h: Float[Tensor, "b d"],
        c: Float[Tensor, "b d"],
        reset: Bool[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b t d"], tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]]:
        """h after every step, and the last (h, c). A step whose reset is set first zeroes the state."""
        h_all, c_last = _Sequence.apply(x, h, c, reset, self.kernel, self.bias, self.compute_dtype)  # type: ignore[misc]
        return h_all, (h_all[:, -1], c_last)


def sequence_reference(
    lstm: LSTM, x: Tensor, h: Tensor, c: Tensor, reset: Tensor | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """`LSTM.sequence` as a plain loop over `step`."""
    h_all = []
    for t in range(x.shape[1]):
        if reset is not None:
            h, c = (torch.where(reset[:, t, None], 0.0, x) for x in (h, c))  # also where it is NaN
        h, c = lstm.step(x[:, t], h, c)
        h_all.append(h)
    return torch.stack(h_all, 1), (h, c)


class _Sequence(torch.autograd.Function):
    """h of all steps [B T D] (a view of time-major memory) and the last c [B D].

    Columns are reordered to i, f, o, j, so that the three sigmoids are one call. Time-major buffers:
    `gates` [T B 4D] holds the projected inputs before a step and the activated gates after it; `h_in` [T B D]
    what a step multiplied; `c_all` [T+1 B D], with c_all[t] the c that step t was given (before a reset).
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        reset: Tensor | None,
        kernel: Tensor,
        bias: Tensor,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        steps, (rows, width), inputs = x.shape[1], h.shape, x.shape[2]
        dtype = dtype if x.dtype == torch.float32 else x.dtype  # float64 in gradient checks
        weight, shift = _sigmoids_first(kernel).to(dtype), _sigmoids_first(bias.clone())
        shift[width : 2 * width] += FORGET_BIAS
        x_in = x.transpose(0, 1).to(dtype, memory_format=torch.contiguous_format)
        gates = torch.addmm(shift.to(dtype), x_in.reshape(-1, inputs), weight[:inputs]).view(steps, rows, -1)
        fresh = _fresh(reset, steps)
        h_in, c_all = x_in.new_empty(steps, rows, width), c.new_empty(steps + 1, rows, width)
        h_all = h.new_empty(steps, rows, width)
        c_all[0] = c
        active = gates.new_empty(rows, 4 * width, dtype=c.dtype)
        squashed = torch.empty_like(c)
        for t in range(steps):
            c = c_all[t]
            if len(fresh[t]):
                h, c = h.index_fill(0, fresh[t], 0.0), c.index_fill(0, fresh[t], 0.0)
            h_in[t] = h
            gate = gates[t].addmm_(h_in[t], weight[inputs:])
            if dtype == c.dtype:
                active = gate
            else:
                active.copy_(gate)
            active[:, : 3 * width].sigmoid_()
            _tanh_into(active[:, 3 * width :], active[:, 3 * width :])
            i, f, o, j = active.split(width, -1)
            torch.mul(c, f, out=c_all[t + 1]).addcmul_(i, j)
            h = torch.mul(_tanh_into(squashed, c_all[t + 1]), o, out=h_all[t])
            if dtype != c.dtype:
                gate.copy_(active)
        ctx.save_for_backward(x_in, gates, h_in, c_all, weight)
        ctx.fresh = fresh  # type: ignore[attr-defined]
        return h_all.transpose(0, 1), c_all[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_h_all: Tensor, grad_c: Tensor):  # type: ignore[override]
        x_in, gates, h_in, c_all, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        fresh: tuple[Tensor, ...] = ctx.fresh  # type: ignore[attr-defined]
        steps, rows, inputs = x_in.shape
        width = h_in.shape[-1]
        grad_out = grad_h_all.transpose(0, 1)  # [T B D]
        grad_x = torch.empty_like(x_in, dtype=c_all.dtype)
        grad_weight = c_all.new_zeros(weight.shape)
        grad_bias = c_all.new_zeros(4 * width)
        grad_h, grad_c = torch.zeros_like(c_all[0]), grad_c.clone()
        squashed, active = torch.empty_like(grad_c), c_all.new_empty(rows, 4 * width)
        grad_gate = torch.empty_like(active)
        for end in range(steps, 0, -_CHUNK):
            begin = max(0, end - _CHUNK)
            chunk = gates.new_empty(end - begin, rows, 4 * width)
            for t in reversed(range(begin, end)):
                grad_h += grad_out[t]
                c = c_all[t].index_fill(0, fresh[t], 0.0) if len(fresh[t]) else c_all[t]
                i, f, o, j = active.copy_(gates[t]).split(width, -1)
                grad_i, grad_f, grad_o, grad_j = grad_gate.split(width, -1)
                _tanh_into(squashed, c_all[t + 1])
                torch.mul(grad_h, squashed, out=grad_o)
                grad_h.mul_(o)
                grad_c += _tanh_backward(grad_h, squashed, grad_input=grad_h)
                torch.mul(grad_c, j, out=grad_i)
                torch.mul(grad_c, c, out=grad_f)
                torch.mul(grad_c, i, out=grad_j)
                sigmoids = grad_gate[:, : 3 * width]
                _sigmoid_backward(sigmoids, active[:, : 3 * width], grad_input=sigmoids)
                _tanh_backward(grad_j, j, grad_input=grad_j)
                grad_c.mul_(f)
                flat = chunk[t - begin].copy_(grad_gate)
                grad_h.copy_(flat @ weight[inputs:].T)
                if len(fresh[t]):
                    grad_h.index_fill_(0, fresh[t], 0.0)
                    grad_c.index_fill_(0, fresh[t], 0.0)
            flat = chunk.view(-1, 4 * width)
            grad_x[begin:end] = (flat @ weight[:inputs].T).view(end - begin, rows, inputs)
            grad_weight[:inputs] += x_in[begin:end].reshape(-1, inputs).T @ flat
            grad_weight[inputs:] += h_in[begin:end].view(-1, width).T @ flat
            grad_bias += flat.sum(0, dtype=grad_bias.dtype)
        grad_kernel, grad_bias = _sigmoids_last(grad_weight), _sigmoids_last(grad_bias)
        return grad_x.transpose(0, 1), grad_h, grad_c, None, grad_kernel, grad_bias, None


def lstm_step(
    product: Product, both: Float[Tensor, "b id"], c: Float[Tensor, "b d"]
) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
    """`LSTM.step` without a graph, from `step_product` and [x, h].

    With the columns of j doubled, tanh(j) = 2 sigmoid(2 j) - 1 makes all four gates one sigmoid.
    """
    i, j, f, o = product(both).to(c.dtype).sigmoid_().chunk(4, -1)
    c = torch.mul(c, f).addcmul_(i, j, value=2).sub_(i)
    return _tanh_into(torch.empty_like(c), c).mul_(o), c


def _tanh_into(out: Tensor, x: Tensor) -> Tensor:
    """tanh by the sigmoid, which PyTorch computes six times as fast on the CPU; exact to 1e-7 in float32."""
    return torch.mul(x, 2, out=out).sigmoid_().mul_(2).sub_(1)


def _fresh(reset: Tensor | None, steps: int) -> tuple[Tensor, ...]:
    """For each step the numbers of the rows that forget first. They are overwritten: 0 x NaN would be NaN."""
    if reset is None:
        return (torch.empty(0, dtype=torch.long),) * steps
    return reset.T.nonzero()[:, 1].split(reset.sum(0).tolist())


def _sigmoids_first(columns: Tensor) -> Tensor:
    """Columns i, j, f, o -> i, f, o, j."""
    i, j, f, o = columns.chunk(4, -1)
    return torch.cat([i, f, o, j], -1)


def _sigmoids_last(columns: Tensor) -> Tensor:
    """Columns i, f, o, j -> i, j, f, o."""
    i, f, o, j = columns.chunk(4, -1)
    return torch.cat([i, j, f, o], -1)
