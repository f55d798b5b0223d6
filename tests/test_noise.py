import math

import torch

from oneiro import noise

KEYS = torch.tensor([0, 1, 2, 3, -5, 2**62, -(2**63), 2**63 - 1])


def splitmix64(seed: int, count: int) -> list[int]:
    """The published generator in plain integers."""
    out, mask = [], 2**64 - 1
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        out.append(z ^ (z >> 31))
    return out


def test_it_is_splitmix64():
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    got = noise.uniform(KEYS, 4, 3)
    for key, row in zip(KEYS.tolist(), got.tolist(), strict=True):
        inner = splitmix64(key % 2**64, 5)[4]
        assert row == [(x >> 40) / 2**24 for x in splitmix64(inner, 3)]


def test_a_row_does_not_depend_on_its_company():
    counter = torch.arange(len(KEYS))
    for draw in (noise.uniform, noise.normal):
        together = draw(KEYS, counter, 5)
        order = torch.tensor([3, 1, 7])
        assert torch.equal(draw(KEYS[order], counter[order], 5), together[order])
        assert torch.equal(draw(KEYS[2:3], 2, 5), together[2:3])
    assert torch.equal(noise.uniform(KEYS, 9, 8)[:, :3], noise.uniform(KEYS, 9, 3))


def test_uniform_is_uniform():
    keys, steps = torch.arange(400), 250
    u = torch.stack([noise.uniform(keys, t, 4) for t in range(steps)], 1)  # [400, 250, 4]
    assert u.min() >= 0
    assert u.max() < 1
    n = u.numel()
    assert abs(u.mean().item() - 0.5) < 4 / math.sqrt(12 * n)
    assert abs(u.var().item() - 1 / 12) < 1e-3
    counts = torch.histc(u, 100, 0, 1)
    chi2 = ((counts - n / 100) ** 2 / (n / 100)).sum().item()
    assert 50 < chi2 < 160  # 99 degrees of freedom
    centred = u - 0.5
    neighbours = {
        "keys": (centred[1:] * centred[:-1]),
        "steps": (centred[:, 1:] * centred[:, :-1]),
        "columns": (centred[..., 1:] * centred[..., :-1]),
    }
    for name, product in neighbours.items():
        assert abs(product.mean().item()) < 4 / 12 / math.sqrt(product.numel()), name


def test_normal_is_normal():
    x = noise.normal(torch.arange(2000), 3, 100)
    assert x.shape == (2000, 100)
    assert torch.isfinite(x).all()
    assert abs(x.mean().item()) < 4 / math.sqrt(x.numel())
    assert abs(x.var().item() - 1) < 0.02
    assert abs((x**4).mean().item() - 3) < 0.15
    inside = (x.abs() < 1.959964).float().mean().item()
    assert abs(inside - 0.95) < 0.003


def test_numpy_and_torch_give_the_same_numbers():
    for counter in (0, 2**40, torch.arange(len(KEYS)) - 3):
        assert torch.equal(noise._bits_by_numpy(KEYS, counter, 33), noise._bits_by_torch(KEYS, counter, 33))


def test_it_draws_inside_a_transform_too():
    drawn = torch.func.vmap(lambda key: noise.uniform(key[None], 3, 4)[0])(KEYS)
    assert torch.equal(drawn, noise.uniform(KEYS, 3, 4))
