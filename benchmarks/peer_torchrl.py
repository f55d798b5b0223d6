"""torchrl's DreamerV3, for peers.py: runs in the Python that has torchrl, without oneiro.

torchrl brings modules, losses and an optimizer, and no agent in the package; here they are put together as the
docstring of its `DreamerV3Loss` does, with the block GRU, two-hot heads and the pictures' networks at the widths asked
for. An update is `DreamerV3OptimizationStepper.step`, a dream a rollout of its `DreamerEnv` (reward included), acting
the encoder, one step of prior and posterior, and the actor.
"""

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import (
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictSequential,
)
from tensordict.nn import TensorDictModule as Named
from torch import Tensor, nn
from torch.nn import functional as F
from torchrl.data import Composite, OneHot, Unbounded
from torchrl.envs.model_based import DreamerEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import (
    DreamerV3ImageDecoder,
    DreamerV3ImageEncoder,
    DreamerV3MLP,
    OneHotCategorical,
    RSSMPosteriorV3,
    RSSMPriorV3,
    RSSMRolloutV3,
    SymExpTwoHot,
    WorldModelWrapper,
)
from torchrl.objectives import (
    DreamerV3ActorLoss,
    DreamerV3Loss,
    DreamerV3ModelLoss,
    DreamerV3ValueLoss,
    SoftUpdate,
    ValueEstimators,
)
from torchrl.trainers.algorithms import DreamerV3OptimizationStepper, DreamerV3Optimizer

STATE = ["state", "belief"]
NEXT = [("next", name) for name in STATE]


class Peer:
    """Networks by the names under which they are read."""

    def __init__(self, s: dict[str, Any]) -> None:
        torch.set_float32_matmul_precision(s["matmul"])
        self.s, units = s, s["units"]
        self.z_dim, self.h_dim = s["stoch"] * s["classes"], s["deter"]
        latent = {"num_categoricals": s["stoch"], "num_classes": s["classes"]}
        latent |= {"hidden_dim": units, "rnn_hidden_dim": self.h_dim, "unimix": 0.01}
        self.encoder = DreamerV3ImageEncoder(s["image"][0], s["depth"])
        tokens = self.encoder.output_features(tuple(s["image"]))
        self.prior = RSSMPriorV3(
            action_shape=(s["action"],),
            action_dim=s["action"],
            recurrent_model="block_gru",
            num_blocks=s["blocks"],
            **latent,
        )
        self.posterior = RSSMPosteriorV3(obs_embed_dim=tokens, use_rms_norm=True, **latent)
        size = self.z_dim + self.h_dim
        self.decoder = DreamerV3ImageDecoder(size, tuple(s["image"]), s["depth"], num_blocks=s["blocks"])
        self.reward = DreamerV3MLP(size, s["bins"], depth=1, num_cells=units, outscale=0.0)
        self.cont = DreamerV3MLP(size, 1, depth=1, num_cells=units)
        self.critic = DreamerV3MLP(size, s["bins"], num_cells=units, outscale=0.0)
        self.policy = DreamerV3MLP(size, s["action"], num_cells=units, outscale=0.01)
        self.twohot = SymExpTwoHot(s["bins"])
        self.actor = ProbabilisticTensorDictSequential(
            Named(self.policy, STATE, ["logits"]),
            ProbabilisticTensorDictModule(["logits"], ["action"], distribution_class=OneHotCategorical),
        )
        self.env = self._imagination()

    def _imagination(self) -> DreamerEnv:
        reward = TensorDictSequential(
            Named(self.reward, STATE, ["reward_logits"]), Named(self.twohot, ["reward_logits"], ["reward"])
        )
        prior = Named(self.prior, [*STATE, "action"], ["_", *STATE])
        env = DreamerEnv(WorldModelWrapper(prior, reward), (self.z_dim,), (self.h_dim,))
        env.observation_spec = Composite(state=Unbounded(self.z_dim), belief=Unbounded(self.h_dim))
        env.state_spec = env.observation_spec.clone()
        env.action_spec, env.reward_spec = OneHot(self.s["action"]), Unbounded((1,))
        return env

    def losses(self) -> DreamerV3Loss:
        """The objective with the weights of the paper."""
        discount = 1 - 1 / 333
        encoded = ("next", "encoded_latents")
        prior_out = [("next", "prior_logits"), *NEXT]
        world = TensorDictSequential(
            Named(self.encoder, [("next", "pixels")], [encoded]),
            RSSMRolloutV3(
                Named(self.prior, [*STATE, "action"], prior_out),
                Named(self.posterior, [NEXT[1], encoded], [("next", "posterior_logits"), NEXT[0]]),
            ),
            Named(self.decoder, NEXT, [("next", "reco_pixels")]),
            Named(self.reward, NEXT, [("next", "reward_logits")]),
            Named(self.twohot, [("next", "reward_logits")], [("next", "reward")]),
            Named(self.cont, NEXT, [("next", "continue_pred")]),
        )
        value = TensorDictSequential(
            Named(self.critic, STATE, ["state_value_logits"]),
            Named(self.twohot, ["state_value_logits"], ["state_value"]),
        )
        cont = TensorDictSequential(
            Named(self.cont, STATE, ["cont_logits"]), Named(nn.Sigmoid(), ["cont_logits"], ["continuation"])
        )
        model = DreamerV3ModelLoss(
            world,
            lambda_continue=1.0,
            kl_mode="separate",
            unimix=0.01,
            continue_target_scale=discount,
            reco_symlog=False,
            detach_output=False,
        )
        actor = DreamerV3ActorLoss(
            self.actor,
            value,
            self.env,
            continuation_model=cont,
            imagination_horizon=self.s["horizon"],
            use_reinforce=True,
        )
        actor.make_value_estimator(ValueEstimators.TDLambda, gamma=1.0, lmbda=0.95)
        critic = DreamerV3ValueLoss(value, "two_hot", actor_loss=actor, slow_critic_regularization=1.0)
        return DreamerV3Loss(model, actor, critic)

    def update(self) -> Callable[[], Any]:
        """One gradient step on a batch."""
        s, lead = self.s, (self.s["size"], self.s["length"])
        losses = self.losses()
        follow = SoftUpdate(losses.value_loss, tau=0.02)
        stepper = DreamerV3OptimizationStepper(losses, DreamerV3Optimizer(losses.parameters()), follow)
        no = torch.zeros(*lead, 1, dtype=torch.bool)
        found = {
            "pixels": torch.randint(0, 256, (*lead, *s["image"]), dtype=torch.uint8),
            "reward": torch.randn(*lead, 1),
            "done": no,
            "terminated": no,
        }
        action = F.one_hot(torch.randint(s["action"], lead), s["action"]).float()
        blank = {"state": torch.zeros(*lead, self.z_dim), "belief": torch.zeros(*lead, self.h_dim)}
        rows = TensorDict({**blank, "action": action, "is_init": no, "next": found}, lead)
        return lambda: stepper.step(None, rows)

    def dream(self) -> Callable[[], Any]:
        """Rows that begin at zero."""
        rows, steps = self.s["rows"], self.s["horizon"]
        blank = {"state": torch.zeros(rows, self.z_dim), "belief": torch.zeros(rows, self.h_dim)}
        start = TensorDict(blank, [rows])
        options = {"auto_reset": False, "break_when_any_done": False}

        @torch.no_grad()
        def run() -> Any:
            with set_exploration_type(ExplorationType.RANDOM):
                begin = self.env.reset(start.copy())
                return self.env.rollout(steps, self.actor, tensordict=begin, **options)

        return run

    def act(self, n: int) -> Callable[[], Any]:
        """Observation in, action out."""
        picture = torch.randint(0, 256, (n, *self.s["image"]), dtype=torch.uint8)
        z, h, action = (torch.zeros(n, width) for width in (self.z_dim, self.h_dim, self.s["action"]))

        @torch.no_grad()
        def run() -> Tensor:
            nonlocal z, h, action
            h = self.prior._update_belief(z, h, action)  # what its own state estimator calls
            _, z = self.posterior(h, self.encoder(picture))
            with set_exploration_type(ExplorationType.RANDOM):
                action = self.actor(TensorDict({"state": z, "belief": h}, [n]))["action"].float()
            return action

        return run


WORK: dict[str, Callable[[dict[str, Any]], Callable[[], Any]]] = {
    "update": lambda s: Peer(s).update(),
    "dream": lambda s: Peer(s).dream(),
    "act 1": lambda s: Peer(s).act(1),
    "act 16": lambda s: Peer(s).act(16),
}

if __name__ == "__main__":
    peer = Peer(json.loads(sys.argv[1]))
    networks = [x for x in vars(peer).values() if isinstance(x, nn.Module) and x is not peer.env]
    count = sum(p.numel() for p in {p for network in networks for p in network.parameters()})
    print(json.dumps({"version": version("torchrl"), "torch": torch.__version__, "parameters": count}))
