"""The LSTM of World Models: TensorFlow's `BasicLSTMCell`, for sequences with resets in them.

    i, j, f, o = [x, h] @ kernel + bias           one bias; columns in this order
    c' = c * sigmoid(f + 1) + sigmoid(i) * tanh(j)     the +1 is added at run time
    h' = tanh(c') * sigmoid(o)

*Deviations.* The released code resets, at a restart in mid-sequence, to the state *fed* at the start of the
batch; we reset to zero, which is what it means to do.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

FORGET_BIAS = 1.0


class LSTM(nn.Module):
    """One layer. Weights and states are float32; matmuls run in `compute_dtype`."""

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
        i, j, f, o = torch.addmm(self.bias, torch.cat([x, h], -1), self.kernel).chunk(4, -1)
        c = c * torch.sigmoid(f + FORGET_BIAS) + torch.sigmoid(i) * torch.tanh(j)
        return torch.tanh(c) * torch.sigmoid(o), c

    def sequence(
        self,
        x: Float[Tensor, "b t i"],
        h: Float[Tensor, "b d"],
        c: Float[Tensor, "b d"],
        reset: Bool[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b t d"], tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]]:
        """h after every step, and the last (h, c). A step whose reset is set first zeroes the state."""
        return sequence_reference(self, x, h, c, reset)


def sequence_reference(
    lstm: LSTM, x: Tensor, h: Tensor, c: Tensor, reset: Tensor | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """`LSTM.sequence` as a plain loop over `step`."""
    h_all = []
    for t in range(x.shape[1]):
        if reset is not None:
            keep = ~reset[:, t, None]
            h, c = h * keep, c * keep
        h, c = lstm.step(x[:, t], h, c)
        h_all.append(h)
    return torch.stack(h_all, 1), (h, c)
