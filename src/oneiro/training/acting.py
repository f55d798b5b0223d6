"""The agent in all slots of an environment: `Playing` lives through it, `Acting` also stores what arrives."""

from collections.abc import Callable

import gymnasium
import torch
from torch import Tensor

from oneiro.agent import Agent
from oneiro.data.collect import episode_seeds, seat
from oneiro.data.replay import Replay
from oneiro.data.rollout import Rollout, Turn


class Playing:
    """Turn by turn: `live` takes in a row of every slot, `go_on` acts and lets the environments begin the next turn."""

    def __init__(
        self,
        agent: Agent,
        env: gymnasium.vector.VectorEnv,
        *,
        seed: int,
        device: torch.device,
        overlap: bool,
        latents: bool = True,
        begun: int = 0,
        stride: int = 1,
    ) -> None:
        """`seed` of the run: seeds and keys of episodes derive from it. `overlap`, `begun`, `stride`: see `Rollout`.

        `latents`: those of the rows are wanted.
        """
        self.agent, self.seed, self.device, self.latents = agent, seed, device, latents
        self.ids = torch.full((env.num_envs,), -1)
        self.rollout = Rollout(env, seed=seed, begun=begun, stride=stride, overlap=overlap)
        self.carry = agent.eval().start(env.num_envs)
        self.rollout.send(None)

    def live(self, meanwhile: Callable[[], None] = lambda: None) -> tuple[Turn, dict[str, Tensor]]:
        """Wait for the turn's rows and observe them; their latents come too. See `Rollout.receive` for `meanwhile`."""
        turn = self.rollout.receive(meanwhile)
        self.ids, agent = torch.from_numpy(turn.ids), self.agent.eval()
        self.carry = agent.observe(self.carry, turn.step(self.device))
        begun = turn.is_first.nonzero()[0].tolist()
        if begun and self.carry.memory:
            keys = [episode_seeds(self.seed, int(turn.ids[i]))[1] for i in begun]
            self.carry = seat(self.carry, begun, agent.behaviour.memory(len(begun)), keys)
        return turn, self._memo()

    def go_on(self) -> None:
        """Act on the rows that `live` took in."""
        action, self.carry = self.agent.eval().act(self.carry, explore=True)
        self.rollout.send(action)

    def hand_over(self, agent: Agent) -> None:
        """Another agent goes on in the middle of the episodes; it has seen nothing of them. After `go_on`."""
        count = len(self.ids)
        self.agent, self.carry = agent, agent.eval().start(count)
        if self.carry.memory:
            keys = [episode_seeds(self.seed, id)[1] for id in self.ids.tolist()]
            self.carry = seat(self.carry, list(range(count)), agent.behaviour.memory(count), keys)

    def close(self) -> None:
        """Wait for the environments."""
        self.rollout.close()

    @torch.no_grad()
    def _memo(self) -> dict[str, Tensor]:
        """Latents of the rows; none if nobody wants them, or the behaviour is blind and the world has seen nothing."""
        return self.agent.world.memo(self.carry.state) if self.latents and self.carry.state else {}


class Acting:
    """Plays here, in step with the updates: a row of every stream a turn."""

    def __init__(
        self,
        agent: Agent,
        env: gymnasium.vector.VectorEnv,
        replay: Replay,
        *,
        seed: int,
        device: torch.device,
        overlap: bool,
        latents: bool = True,
    ) -> None:
        """See `Playing`; the ids of episodes go on where those of `replay` end."""
        self.replay = replay
        self.playing = Playing(
            agent,
            env,
            seed=seed,
            device=device,
            overlap=overlap,
            latents=latents,
            begun=replay.begun,
            stride=replay.share.count,
        )

    def live(self, meanwhile: Callable[[], None] = lambda: None) -> Turn:
        """Wait for the turn's rows, observe and store them. See `Rollout.receive` for `meanwhile`."""
        turn, memo = self.playing.live(meanwhile)
        self.replay.append(
            turn.columns(), turn.is_first, turn.terminated, turn.last, memo or None, turn.arrived
        )
        assert self.replay.begun == self.playing.rollout.begun, "the ids of episodes are out of step"
        return turn

    def go_on(self) -> None:
        """Act on the rows that `live` took in."""
        self.playing.go_on()

    def hand_over(self, agent: Agent) -> None:
        """See `Playing`."""
        self.playing.hand_over(agent)

    def close(self) -> None:
        """Wait for the environments."""
        self.playing.close()
