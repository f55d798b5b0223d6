"""Attention of few pixels in bfloat16 takes a plain form on a CPU: the same numbers."""

import torch
import torch.nn.functional as F

from oneiro.nets.adagn_unet import PLAIN_PIXELS, _attention


def test_plain_form() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 8, 16, 8) for _ in range(3))
    exact = F.scaled_dot_product_attention(q, k, v)
    assert torch.equal(_attention(q, k, v), exact)  # float32: the library's own
    assert PLAIN_PIXELS >= 16
    found = _attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=2e-2, rtol=2e-2)
