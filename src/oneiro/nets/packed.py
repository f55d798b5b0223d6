"""A linear layer's weight as the processor's matrix product wants it, for layers that are called many times unchanged.

`F.linear` in bfloat16 on a CPU brings the weight into oneDNN's own layout at every call. `packed` does it once, which
saves about 5 % of a product of 1,024 rows with a weight of 2 MB. Elsewhere (a GPU, float32, a PyTorch without these
operators) it is `F.linear`.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Product = Callable[[Tensor], Tensor]
"""x [B, in] -> x W^T + b [B, out] in the dtype of W, to which x is cast. No graph."""


def plain(weight: Tensor, bias: Tensor) -> Product:
    """From a weight [out, in] and a bias [out] of one dtype."""
    return lambda x: F.linear(x.to(weight.dtype), weight, bias)


def packed(weight: Tensor, bias: Tensor, rows: int = 1024) -> Product:
    """Like `plain`, with a copy of the weight laid out for about `rows` rows (any number may come)."""
    if not can_pack(weight):
        return plain(weight, bias)
    ours = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows)
    bias = bias.detach()
    return lambda x: torch.ops.mkldnn._linear_pointwise(x.to(bias.dtype), ours, bias, "none", [], "")


def can_pack(weight: Tensor) -> bool:
    """bfloat16 on a CPU that multiplies in it, and the operators are there."""
    return (
        weight.dtype == torch.bfloat16
        and weight.device.type == "cpu"
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
