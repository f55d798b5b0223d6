"""A world that is exactly right, and its episodes: a ball that moves as told and a count of steps to the end."""

import numpy as np
import torch

from oneiro.behaviour import Behaviour
from oneiro.data.episodes import Episode
from oneiro.spaces import ActionCodec, Spaces, to_float
from oneiro.types import Carry, Decision, Losses, Prediction
from oneiro.world import WorldModel

SIZE = 16
LIFE = 12


def paint(x: int, age: int) -> np.ndarray:
    """uint8 [3, SIZE, SIZE]: a ball at column x (wrapping), brightness of the floor = age."""
    image = np.zeros((3, SIZE, SIZE), np.uint8)
    image[2, -2:] = 10 * age
    image[:2, 6:9, np.arange(x, x + 3) % SIZE] = 255
    return image


class Ball(WorldModel):
    """State: x, age [B] long. Three actions: left, none, right. Terminal at age LIFE."""

    feature_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.spaces = Spaces({"image": (3, SIZE, SIZE)}, ActionCodec(3))
        self.blank = torch.nn.Parameter(torch.zeros(1))

    def losses(self, batch, parts, before=None):
        return Losses({"all": self.blank.sum()})

    def start(self, n):
        return {"x": torch.zeros(n).long(), "age": torch.zeros(n).long(), "draw": torch.arange(n)}

    def observe(self, state, row):
        image = row.obs["image"]
        x = (image[:, 0, 7] > 0).long()
        left = (x & ~x.roll(1, -1).bool()).argmax(-1)
        return {"x": left, "age": image[:, 2, -1, 0].long() // 10, "draw": state["draw"]}

    def step(self, state, action, temperature=1.0):
        noise = torch.rand(int(state["draw"].max()) + 1)[state["draw"]]
        jump = (noise < (temperature - 1) / 2).long() * 3 if temperature > 1 else 0
        x = (state["x"] + action.argmax(-1) - 1 + jump) % SIZE
        age = state["age"] + 1
        return Prediction({**state, "x": x, "age": age}, torch.ones(len(x)), (age < LIFE).float())

    def feature(self, state):
        return torch.stack([state["x"], state["age"]], -1).float()

    def decode(self, state):
        images = [paint(int(x), int(a)) for x, a in zip(state["x"], state["age"], strict=True)]
        return {"image": to_float(torch.from_numpy(np.stack(images)))}


class Right(Behaviour):
    def act(self, world, state, memory, *, goal=None, explore=False):
        return Decision(torch.tensor([[0.0, 0.0, 1.0]]).expand(len(state["x"]), -1))


def episode(id: int = 0, length: int = LIFE, seed: int = 0) -> Episode:
    """`length` steps of random actions in the ball's game; the last one is terminal at LIFE."""
    rng = np.random.default_rng(seed + id)
    choice = rng.integers(0, 3, length)
    x = np.concatenate([[5], 5 + np.cumsum(choice - 1)]) % SIZE
    action = np.zeros((length + 1, 3), np.float32)
    action[np.arange(1, length + 1), choice] = 1
    return Episode(
        id=id,
        obs={"image": np.stack([paint(int(a), t) for t, a in enumerate(x)])},
        action=action,
        reward=np.append(0, np.ones(length)).astype(np.float32),
        terminated=np.arange(length + 1) == LIFE,
        info={"score": float(length), "length": length, "crashed": False},
    )


def begin(n: int) -> Carry:
    """`n` rows that have just seen the ball at column 5."""
    return Carry(state={"x": torch.full((n,), 5), "age": torch.zeros(n).long(), "draw": torch.arange(n)})
