"""Packed weights multiply like plain ones, for any number of rows, and do not follow later writes."""

import pytest
import torch

from oneiro.nets.packed import can_pack, packed, plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_packed_is_plain(dtype: torch.dtype, rows: int):
    torch.manual_seed(0)
    weight, bias, x = (torch.randn(*shape).to(dtype) for shape in ((24, 10), (24,), (rows, 10)))
    expected = plain(weight.float(), bias.float())(x.float())
    got = packed(weight, bias, rows=64)(x)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), expected, rtol=1e-2, atol=3e-2)


def test_a_packed_weight_is_a_copy():
    weight, bias = torch.ones(16, 16, dtype=torch.bfloat16), torch.zeros(16, dtype=torch.bfloat16)
    if not can_pack(weight):
        pytest.skip("this processor or PyTorch packs nothing; plain weights are shared")
    product = packed(weight, bias)
    weight.zero_()
    assert product(torch.ones(1, 16, dtype=torch.bfloat16)).eq(16).all()
