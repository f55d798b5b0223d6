"""Arrival rows to test with: made up from a world's spaces, or played in an environment."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from oneiro import tree
from oneiro.spaces import ActionCodec, Spaces
from oneiro.types import TimeStep

MakeBatch = Callable[[int, int, int], TimeStep]
"""(rows B, steps T, seed) -> unpadded arrival rows [B, T]; the suite adds resets and padding itself."""


def random_rows(spaces: Spaces) -> MakeBatch:
    """Noise of the right shapes: images uint8, other modalities float32, actions through the codec."""

    def make(rows: int, steps: int, seed: int) -> TimeStep:
        g = torch.Generator().manual_seed(seed)
        obs = {
            name: torch.randint(0, 256, (rows, steps, *shape), generator=g, dtype=torch.uint8)
            if name == "image"
            else torch.randn(rows, steps, *shape, generator=g)
            for name, shape in spaces.obs.items()
        }
        no = torch.zeros(rows, steps, dtype=torch.bool)
        return TimeStep(
            obs=obs,
            action=random_actions(spaces.action, (rows, steps), g),
            reward=torch.randn(rows, steps, generator=g),
            is_first=no,
            terminated=no.clone(),
            mask=~no,
        )

    return make


def played_rows(make_env: Callable[[], gymnasium.Env]) -> MakeBatch:
    """Rows of an environment with named modalities under random actions, for worlds that cannot read noise:
    exact ones, or those with a fixed tokeniser for real frames. `played_rows(ToyConfig(id="catch").env)`.
    """

    def make(rows: int, steps: int, seed: int) -> TimeStep:
        env = make_env()
        batch = tree.concat([_play(env, steps, 1_000 * seed + row) for row in range(rows)])
        env.close()
        return batch

    return make


def _play(env: gymnasium.Env, steps: int, seed: int) -> TimeStep:
    codec, g = ActionCodec.of(env.action_space), torch.Generator().manual_seed(seed)
    columns: list[TimeStep] = []
    is_over = True
    while len(columns) < steps:
        if is_over:
            obs, _ = env.reset(seed=seed + len(columns))
            columns.append(_row(obs, torch.zeros(1, codec.dim), 0.0, True, False))
            is_over = False
            continue
        action = random_actions(codec, (1,), g)
        obs, reward, terminated, truncated, _ = env.step(codec.to_env(action)[0])
        columns.append(_row(obs, action, reward, False, terminated))
        is_over = terminated or truncated
    return tree.stack(columns, 1)


def _row(obs: Any, action: Tensor, reward: Any, is_first: bool, terminated: bool) -> TimeStep:
    return TimeStep(
        obs={name: torch.from_numpy(np.array(x)[None]) for name, x in obs.items()},
        action=action,
        reward=torch.tensor([reward], dtype=torch.float32),
        is_first=torch.tensor([is_first]),
        terminated=torch.tensor([terminated]),
        mask=torch.tensor([True]),
    )


def random_actions(codec: ActionCodec, lead: tuple[int, ...], g: torch.Generator) -> Tensor:
    """[*lead, A] float32: one-hot for Discrete and MultiDiscrete, uniform within the bounds for Box."""
    if codec.is_discrete:
        index = [torch.randint(0, n, lead, generator=g) for n in codec.groups]
        return codec.one_hot(torch.stack(index, -1))
    low, high = torch.tensor(codec.low), torch.tensor(codec.high)
    return low + (high - low) * torch.rand(*lead, codec.dim, generator=g)


def restart(batch: TimeStep, where: Tensor) -> TimeStep:
    """New episodes begin at `where` [B, T] (or [B]) too: no action led there, no reward came."""
    keep = ~where
    return replace(
        batch,
        is_first=batch.is_first | where,
        action=None if batch.action is None else batch.action * keep[..., None],
        reward=None if batch.reward is None else batch.reward * keep,
        terminated=batch.terminated & keep,
    )


def with_restarts(batch: TimeStep) -> TimeStep:
    """Rows begin with an episode, but for each second one a window that starts in mid-episode; each third row
    restarts in the middle, after a terminated row or a truncated one.
    """
    steps = batch.is_first.shape[1]
    where = torch.zeros_like(batch.is_first)
    where[::2, 0] = True
    where[1::3, steps // 2] = True
    where[2::3, steps - 1] = True
    batch = restart(batch, where)
    before = torch.zeros_like(where)
    before[:, :-1] = where[:, 1:]
    before[::2] = False
    return replace(batch, terminated=batch.terminated | before)


def pad(batch: TimeStep, garbage: TimeStep, left: int, right: int) -> TimeStep:
    """The first `left` and the last `right` columns are padding that holds `garbage` of the same shape."""
    steps = batch.mask.shape[1]
    inside = torch.zeros_like(batch.mask)
    inside[:, left : steps - right] = True
    mixed = tree.map(
        lambda a, b: torch.where(inside.reshape(*inside.shape, *[1] * (a.ndim - 2)), a, b), batch, garbage
    )
    return replace(mixed, mask=inside)
