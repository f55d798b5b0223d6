"""`Acting`: the agent in all slots of an environment; rows are stored with their latents as they arrive."""

from collections.abc import Callable

import gymnasium
import torch
from torch import Tensor

from oneiro.agent import Agent
from oneiro.data.collect import episode_seeds, seat
from oneiro.data.replay import Replay
from oneiro.data.rollout import Rollout, Turn


class Acting:
    """Turn by turn: `live` takes in a row of every slot, `go_on` acts and lets the environments begin the next turn."""

    def __init__(
        self,
        agent: Agent,
        env: gymnasium.vector.VectorEnv,
        replay: Replay,
        *,
        seed: int,
        device: torch.device,
        overlap: bool,
    ) -> None:
        """`seed` of the run: seeds and keys of episodes derive from it. `overlap`: see `Rollout`."""
        self.agent, self.replay, self.seed, self.device = agent, replay, seed, device
        stride = replay.share.count
        self.rollout = Rollout(env, seed=seed, begun=replay.begun, stride=stride, overlap=overlap)
        self.carry = agent.eval().start(env.num_envs)
        self.rollout.send(None)

    def live(self, meanwhile: Callable[[], None] = lambda: None) -> Turn:
        """Wait for the turn's rows, observe and store them. See `Rollout.receive` for `meanwhile`."""
        turn = self.rollout.receive(meanwhile)
        agent = self.agent.eval()
        self.carry = agent.observe(self.carry, turn.step(self.device))
        begun = turn.is_first.nonzero()[0].tolist()
        if begun and self.carry.memory:
            keys = [episode_seeds(self.seed, int(turn.ids[i]))[1] for i in begun]
            self.carry = seat(self.carry, begun, agent.behaviour.memory(len(begun)), keys)
        self.replay.append(
            turn.columns(), turn.is_first, turn.terminated, turn.last, self._memo() or None, turn.arrived
        )
        assert self.replay.begun == self.rollout.begun, "the ids of episodes are out of step"
        return turn

    def go_on(self) -> None:
        """Act on the rows that `live` took in."""
        action, self.carry = self.agent.eval().act(self.carry, explore=True)
        self.rollout.send(action)

    def close(self) -> None:
        """Wait for the environments."""
        self.rollout.close()

    @torch.no_grad()
    def _memo(self) -> dict[str, Tensor]:
        """Latents of the rows; none if the behaviour is blind and the world has seen nothing."""
        return self.agent.world.memo(self.carry.state) if self.carry.state else {}
