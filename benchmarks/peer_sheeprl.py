"""sheeprl's DreamerV3 of the Nature paper, for peers.py: runs in the Python that has sheeprl, without oneiro.

Its own functions are called as its `main` calls them: `train` and `update_target_critic` for an update, `imagine` for a
dream (without gradient; values and returns of the dream included, which ours leaves out), `PlayerDV3_5.get_actions` for
acting. The replay is left out: rows lie in memory.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import hydra
import numpy as np
import torch
from lightning.fabric import Fabric
from omegaconf import OmegaConf
from sheeprl import __version__
from sheeprl.algos.dreamer_v3_5.agent import build_agent
from sheeprl.algos.dreamer_v3_5.dreamer_v3_5 import imagine, train, update_target_critic
from sheeprl.algos.dreamer_v3_5.utils import Moments, prepare_obs
from sheeprl.utils.utils import dotdict
from torch import Tensor
from torch.nn import functional as F


class Peer:
    """World, actor, critic, slow critic and player, set up as by `sheeprl exp=dreamer_v3_5`."""

    def __init__(self, s: dict[str, Any], num_envs: int = 1) -> None:
        torch.set_float32_matmul_precision(s["matmul"])
        overrides = [
            "exp=dreamer_v3_5",
            f"algo=dreamer_v3_5_{s['name'].upper()}",
            "env=dummy",
            f"env.num_envs={num_envs}",
            "algo.cnn_keys.encoder=[rgb]",
            "algo.mlp_keys.encoder=[]",
            "algo.actor.unimix=0",
            f"algo.horizon={s['horizon']}",
        ]
        with hydra.initialize_config_module("sheeprl.configs", version_base="1.3"):
            found = hydra.compose("config", overrides)
        kept = {key: found[key] for key in ("algo", "env", "distribution")}
        plain = OmegaConf.to_container(OmegaConf.create(kept), resolve=True)
        self.config, self.s, self.num_envs = dotdict(plain), s, num_envs
        self.fabric = Fabric(accelerator="cpu", devices=1, precision=s["precision"])
        space = gymnasium.spaces.Dict({"rgb": gymnasium.spaces.Box(0, 255, tuple(s["image"]), dtype="uint8")})
        built = build_agent(self.fabric, (s["action"],), False, self.config, space)
        self.world, self.actor, self.critic, self.slow, self.player = built
        self.parameters = [*self.world.parameters(), *self.actor.parameters(), *self.critic.parameters()]

    def update(self) -> Callable[[], Any]:
        """One gradient step on a batch, the row before it included from which its state is taken."""
        s, config, latent = self.s, self.config, self.config.algo.world_model
        lead = (s["length"] + config.algo.replay_context, s["size"])
        optimizer = hydra.utils.instantiate(config.algo.optimizer, params=self.parameters, _convert_="all")
        optimizer, moments = self.fabric.setup_optimizers(optimizer), Moments(0.99, 1.0, 0.05, 0.95)
        none = torch.zeros(*lead, 1)
        rows = {
            "rgb": torch.randint(0, 256, (*lead, *s["image"]), dtype=torch.uint8),
            "actions": F.one_hot(torch.randint(s["action"], lead), s["action"]).float(),
            "rewards": torch.randn(*lead, 1),
            "deter": torch.zeros(*lead, latent.recurrent_model.recurrent_state_size, dtype=torch.half),
            "stoch": torch.zeros(*lead, latent.stochastic_size, dtype=torch.uint8),
            **{name: none for name in ("is_first", "terminated", "truncated")},
        }

        def run() -> None:
            everything = (self.world, self.actor, self.critic, self.slow, optimizer, moments, dict(rows))
            train(self.fabric, config, *everything, None, (s["action"],))
            update_target_critic(self.critic, self.slow, config.algo.critic.tau)

        return run

    def dream(self) -> Callable[[], Any]:
        """Rows that begin at zero."""
        algo, latent = self.config.algo, self.config.algo.world_model
        z = torch.zeros(1, self.s["rows"], latent.stochastic_size * latent.discrete_size)
        h = torch.zeros(1, self.s["rows"], latent.recurrent_model.recurrent_state_size)

        @torch.no_grad()
        def run() -> Any:
            networks = (self.world, self.actor, self.critic, self.slow)
            return imagine(*networks, z, h, horizon=algo.horizon, discount=1.0, lmbda=algo.lmbda)

        return run

    def act(self) -> Callable[[], Any]:
        """Observation in, action out."""
        picture = np.random.randint(0, 256, (self.num_envs, *self.s["image"]), dtype=np.uint8)
        self.player.init_states()

        @torch.inference_mode()
        def run() -> Tensor:
            obs = prepare_obs(self.fabric, {"rgb": picture}, cnn_keys=["rgb"], num_envs=self.num_envs)
            return self.player.get_actions(obs)[0]

        return run


WORK: dict[str, Callable[[dict[str, Any]], Callable[[], Any]]] = {
    "update": lambda s: Peer(s).update(),
    "dream": lambda s: Peer(s).dream(),
    "act 1": lambda s: Peer(s).act(),
    "act 16": lambda s: Peer(s, 16).act(),
}

if __name__ == "__main__":
    count = sum(p.numel() for p in Peer(json.loads(sys.argv[1])).parameters)
    print(json.dumps({"version": __version__, "torch": torch.__version__, "parameters": count}))
