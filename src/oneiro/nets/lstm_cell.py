"""torch's LSTM cell with DIAMOND's initialisation, and a sequence of steps with gaps in it."""

import torch
from torch import Tensor, nn


def lstm_cell(inputs: int, hidden: int) -> nn.LSTMCell:
    """Xavier-uniform input weights, orthogonal recurrent ones; biases 0, but 1 for the input's forget gate.

    Gates in the order i, f, g, o.
    """
    cell = nn.LSTMCell(inputs, hidden)
    nn.init.xavier_uniform_(cell.weight_ih)
    nn.init.orthogonal_(cell.weight_hh)
    nn.init.zeros_(cell.bias_hh)
    nn.init.zeros_(cell.bias_ih)
    with torch.no_grad():
        cell.bias_ih[hidden : 2 * hidden].fill_(1.0)
    return cell


def run_lstm(
    cell: nn.LSTMCell, x: Tensor, h: Tensor, c: Tensor, live: Tensor, fresh: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """x [B, T, D] -> (outputs [B, T, H], h, c).

    Before step t the rows with `fresh` [B, T] start from zero; where not `live` [B, T] the step leaves no trace.
    """
    outputs = []
    for t in range(x.shape[1]):
        h, c = (torch.where(fresh[:, t, None], 0.0, x) for x in (h, c))  # also where it is NaN
        new_h, new_c = cell(x[:, t], (h, c))
        h = torch.where(live[:, t, None], new_h, h)
        c = torch.where(live[:, t, None], new_c, c)
        outputs.append(new_h)
    return torch.stack(outputs, 1), h, c
