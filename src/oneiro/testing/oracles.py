"""Worlds with nothing to learn: the exact rules of two toys, so that a failing run can be blamed on the behaviour.

    CatchOracle   env toy "catch": deterministic, reward at the end
    DodgeOracle   env toy "dodge": a new ball every fourth step lands around the player; temperature 0 = right on it

Both read their state off the picture and draw it back pixel by pixel. They have no parts: nothing is fitted.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oneiro.envs.toy import GRID, SIZE, THIRD, Dodge, ToyConfig
from oneiro.spaces import to_float
from oneiro.types import Losses, Obs, Prediction, State, TimeStep
from oneiro.world import WorldModel

FALL = GRID - 2  # steps until the ball of `catch` has landed
THROW_ROW = GRID - 9  # where balls of `dodge` start


class Oracle(WorldModel):
    """What exact worlds share."""

    parts = ()

    def __init__(self, config: ToyConfig, feature_dim: int) -> None:
        super().__init__()
        self.spaces, self.feature_dim = config.spaces(), feature_dim
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)  # where the world is

    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        """Nothing to learn."""
        return Losses({})

    def picture(self, cells: Tensor) -> Obs:
        """Cells [.., 3, GRID, GRID] of 0 and 1 -> image [.., 3, SIZE, SIZE]."""
        scale = SIZE // GRID
        return {"image": cells.repeat_interleave(scale, -2).repeat_interleave(scale, -1)}


class CatchOracle(Oracle):
    """State: player, ball (columns) and steps [B]. Feature: (player, ball, steps, ball - player), each / GRID."""

    def __init__(self) -> None:
        super().__init__(ToyConfig(id="catch"), 4)

    def start(self, n: int) -> State:
        """The player in the middle, the ball at the left."""
        zero = torch.zeros(n, dtype=torch.long, device=self.device)
        return {"player": zero + GRID // 2, "ball": zero, "steps": zero.clone()}

    def observe(self, state: State, row: TimeStep) -> State:
        """Everything is in the picture."""
        cells = to_cells(row.obs["image"])
        return {
            "player": middle(cells[:, 2, GRID - 1]),
            "ball": cells[:, 0].amax(-2).argmax(-1),
            "steps": cells[:, 0].amax(-1).argmax(-1),
        }

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        """Left, stay or right; the ball falls by one. Once landed it stays, without further reward."""
        going = state["steps"] < FALL
        player = (state["player"] + action.argmax(-1) - 1).clamp(0, GRID - 1)
        steps = (state["steps"] + 1).clamp(max=FALL)
        is_caught = (state["ball"] - player).abs() <= 1
        reward = torch.where(is_caught, 1.0, -1.0) * (going & (steps == FALL))
        return Prediction({**state, "player": player, "steps": steps}, reward, (steps < FALL).float())

    def feature(self, state: State) -> Tensor:
        """[.., 4]."""
        numbers = [state["player"], state["ball"], state["steps"], state["ball"] - state["player"]]
        return torch.stack(numbers, -1) / GRID

    def decode(self, state: State) -> Obs:
        """As `Catch` paints it."""
        column = torch.arange(GRID, device=self.device)
        floor = ((column - state["player"][..., None]).abs() <= 1).float()
        ball = one_hot(state["steps"])[..., :, None] * one_hot(state["ball"])[..., None, :]
        ground = one_hot(torch.full_like(state["steps"], GRID - 1))[..., :, None] * floor[..., None, :]
        return self.picture(torch.stack([ball, ball, ground], -3))


class DodgeOracle(Oracle):
    """State: player [B], column of the ball in each row [B, GRID] (-1: none), clock [B] = steps until the next
    throw, draw [B]. Feature: player / GRID, and of every row that has a ball how far right of the player it is.
    """

    def __init__(self) -> None:
        super().__init__(ToyConfig(id="dodge"), 1 + 2 * GRID)

    def start(self, n: int) -> State:
        """The player in the middle, no balls."""
        zero = torch.zeros(n, dtype=torch.long, device=self.device)
        balls = zero[:, None].repeat(1, GRID) - 1
        draw = torch.arange(n, device=self.device)
        return {"player": zero + GRID // 2, "balls": balls, "clock": zero.clone(), "draw": draw}

    def observe(self, state: State, row: TimeStep) -> State:
        """Everything is in the picture: the newest ball tells when the next one comes."""
        cells = to_cells(row.obs["image"])
        has_ball = cells[:, 0].amax(-1) > 0  # [B, GRID]
        balls = torch.where(has_ball, middle(cells[:, 0]), -1)
        newest = has_ball.long().argmax(-1)
        clock = torch.where(has_ball.any(-1), (THROW_ROW - 1 - newest) % Dodge.EVERY, 0)
        return {
            "player": cells[:, 1, GRID - 1].argmax(-1),
            "balls": balls,
            "clock": clock,
            "draw": state["draw"],
        }

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        """Move, fall, throw. Reward 1; over when hit."""
        a, balls = action[:, 0], state["balls"]
        player = (state["player"] + (a > THIRD).long() - (a < -THIRD).long()).clamp(0, GRID - 1)
        balls = torch.cat([torch.full_like(balls[:, :1], -1), balls[:, :-1]], 1)
        landing = balls[:, -1]
        is_hit = (landing >= 0) & ((landing - player).abs() <= Dodge.REACH)
        aim = (player + self._scatter(state["draw"], temperature)).clamp(0, GRID - 1)
        row = torch.arange(GRID, device=self.device)
        is_thrown = (state["clock"] == 0)[:, None] & (row == THROW_ROW)
        balls = torch.where(row == GRID - 1, -1, torch.where(is_thrown, aim[:, None], balls))
        clock = (state["clock"] - 1) % Dodge.EVERY
        following = {"player": player, "balls": balls, "clock": clock, "draw": state["draw"]}
        return Prediction(following, torch.ones_like(a), 1.0 - is_hit.float())

    def _scatter(self, draw: Tensor, temperature: float) -> Tensor:
        """-1, 0 or 1 with equal chances, which no temperature but 0 changes."""
        if temperature == 0:
            return torch.zeros_like(draw)
        uniform = torch.rand(int(draw.max()) + 1, device=draw.device)[draw]
        return (uniform * 3).long().clamp(max=2) - 1

    def feature(self, state: State) -> Tensor:
        """[.., 1 + 2 GRID]."""
        player = state["player"][..., None]
        has_ball = state["balls"] >= 0
        offset = torch.where(has_ball, state["balls"] - player, 0)
        return torch.cat([player / GRID, offset / GRID, has_ball.float()], -1)

    def decode(self, state: State) -> Obs:
        """As `Dodge` paints it."""
        column = torch.arange(GRID, device=self.device)
        is_near = (column - state["balls"][..., None]).abs() <= Dodge.REACH
        balls = (is_near & (state["balls"] >= 0)[..., None]).float()
        ground = one_hot(torch.full_like(state["player"], GRID - 1))[..., :, None]
        player = ground * one_hot(state["player"])[..., None, :]
        return self.picture(torch.stack([balls, player, torch.zeros_like(balls)], -3))


def to_cells(image: Tensor) -> Tensor:
    """[B, 3, SIZE, SIZE] -> 0 or 1 in [B, 3, GRID, GRID]."""
    scale = SIZE // GRID
    return (to_float(image)[..., ::scale, ::scale] > 0.5).float()


def middle(cells: Tensor) -> Tensor:
    """[.., GRID] with a run of three cells (two at the border) -> the column of its centre."""
    first = cells.argmax(-1)
    return torch.where((first == 0) & (cells.sum(-1) < 3), 0, first + 1)


def one_hot(index: Tensor) -> Tensor:
    """[..] -> [.., GRID] float."""
    return (index[..., None] == torch.arange(GRID, device=index.device)).float()
