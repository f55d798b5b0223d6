"""The actor-critic of DreamerV3, which learns from what a world imagines.

Paper: Hafner, Pasukonis, Ba, Lillicrap 2025, "Mastering diverse control tasks through world models" (Nature;
arXiv 2301.04104). Official code: danijar/dreamerv3 ("code" below).

    trace [B, T] --start--> dream [B T, H+1] --> return R --(percentile scale)--> actor
        |                                          |  |
        |                                          |  '--------------------------> critic: two-hot of R
        '--feature, on the graph--> critic <-------' R of column 0 bootstraps the recorded rewards

The dream carries no graph. The policy is computed again for all of it at once, the critic only once. What reaches
the world, if the trainer hands the trace on its graph, is the replay value loss and nothing else.

Deviations from the code:
1. Samples of a Box are cut to its bounds here (the code's environment wrapper does it); their log-prob is of the
   sample before it was cut, as in the code.
2. The discount multiplies the world's probability of going on; the code's world has it inside its head.
3. Padding is masked; the code has no padding.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from oneiro import noise, runtime, tree
from oneiro.behaviour import Behaviour
from oneiro.dreaming import dream
from oneiro.nets.policies import MLPS, Actor, Norm, Policy, within
from oneiro.nets.twohot import TwoHot
from oneiro.returns import PercentileScale, alive_weight, episode_ends, lambda_return
from oneiro.runtime import compute_dtype
from oneiro.spaces import Spaces
from oneiro.types import Carry, Decision, Dream, Losses, State, TimeStep
from oneiro.world import WorldModel


@dataclass(frozen=True, kw_only=True)
class ActorCriticConfig:
    """Actor and critic fitted in dreams; the defaults are those of DreamerV3, its size given by `units`."""

    units: int = 256  # width of hidden layers: the world's d
    layers: int = 3  # hidden layers of the actor and of the critic
    norm: Norm = "rms"  # of hidden layers; layer = the networks and initial weights of 2023's code
    horizon: int = 15  # H, imagined steps
    discount_horizon: float = 333.0  # discount = 1 - 1 / this; inf = no discount
    lam: float = 0.95  # lambda of the return
    entropy: float = 3e-4  # weight of the policy's entropy
    actor_scale: float = 0.01  # of the initial weights of the actor's output
    critic_scale: float = 0.0  # of the initial weights of the critic's output
    unimix: float = (
        0.0  # uniform share of discrete policies; the paper has 0.01, which the code leaves unused
    )
    min_std: float = 0.1  # smallest spread of a continuous policy
    max_std: float = 1.0  # largest spread of a continuous policy
    gradient: Literal["reinforce", "dynamics"] = "reinforce"  # dynamics = through the world (Box; 2023 code)
    cont: Literal["mean", "mode"] = (
        "mean"  # imagined rows go on with their probability, or surely or not at all
    )
    start_cont: Literal["predicted", "recorded"] = "predicted"  # whether a dream's first row goes on
    bins: int = 255  # of the critic's two-hot
    bin_space: Literal["real", "symlog"] = "real"  # how the bins are spaced (2023 code: symlog)
    scale_rate: float = 0.01  # of the running percentiles of returns
    percentiles: tuple[float, float] = (0.05, 0.95)  # whose distance is the scale of returns
    slow_rate: float = 0.02  # the slow critic moves by this share of the way after each update
    slow_weight: float = 1.0  # of the loss that keeps the critic near the slow one
    replay_weight: float = 0.3  # of the value loss on recorded rows; 0 = none
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of layers; auto = as the device

    def __post_init__(self) -> None:
        if min(self.units, self.layers, self.horizon) < 1:
            raise ValueError(
                f"units, layers and horizon must be positive, got {self.units}, {self.layers}, {self.horizon}"
            )
        if not self.discount_horizon > 1 or not 0 <= self.lam <= 1:
            raise ValueError(
                f"discount_horizon must be more than 1 and lam in 0..1, got {self.discount_horizon}, {self.lam}"
            )
        if not 0 <= self.unimix < 1 or not 0 < self.min_std <= self.max_std:
            raise ValueError(
                f"unimix must lie in [0, 1) and 0 < min_std <= max_std, got {self.unimix}, "
                f"{self.min_std}, {self.max_std}"
            )
        if not 0 < self.slow_rate <= 1 or min(self.slow_weight, self.replay_weight, self.entropy) < 0:
            raise ValueError(
                "slow_rate must lie in (0, 1]; slow_weight, replay_weight, entropy not be negative"
            )
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {getattr(self, name)!r}: choose {' or '.join(known)}")

    @property
    def discount(self) -> float:
        """Gamma, per step."""
        return 1 - 1 / self.discount_horizon

    def build(self, spaces: Spaces, feature_dim: int) -> "ActorCritic":
        """The behaviour for an action space and a world's feature."""
        return ActorCritic(self, spaces, feature_dim)


_CHOICES = {
    "norm": ("rms", "layer"),
    "gradient": ("reinforce", "dynamics"),
    "cont": ("mean", "mode"),
    "start_cont": ("predicted", "recorded"),
    "bin_space": ("real", "symlog"),
}


class ActorCritic(Behaviour):
    """See `ActorCriticConfig`. Memory: key [B] and decisions made [B], for the noise of exploring."""

    parts = ("actor", "critic")
    action_middle: Tensor
    action_reach: Tensor

    def __init__(self, config: ActorCriticConfig, spaces: Spaces, feature_dim: int) -> None:
        super().__init__()
        codec = spaces.action
        if config.gradient == "dynamics" and codec.is_discrete:
            raise ValueError(
                "gradient 'dynamics' needs a Box action space; use 'reinforce' for discrete ones"
            )
        self.config, self.codec = config, codec
        self.dtype = compute_dtype(config.compute_dtype)
        self.actor = Actor(
            feature_dim,
            config.units,
            config.layers,
            codec,
            norm=config.norm,
            scale=config.actor_scale,
            unimix=config.unimix,
            std=(config.min_std, config.max_std),
        )
        self.critic = MLPS[config.norm](
            feature_dim, config.units, config.layers, config.bins, scale=config.critic_scale
        )
        self.slow = copy.deepcopy(self.critic).requires_grad_(False)
        self.twohot = TwoHot(config.bins, space=config.bin_space)
        self.scale = PercentileScale(config.scale_rate, config.percentiles)
        low, high = torch.tensor(codec.low), torch.tensor(codec.high)
        self.register_buffer("action_middle", (low + high) / 2, persistent=False)
        self.register_buffer("action_reach", (high - low) / 2, persistent=False)

    def memory(self, n: int) -> State:
        """Key and decisions made."""
        key = torch.arange(n, device=self.scale.low.device)
        return {"key": key, "t": torch.zeros_like(key)}

    def act(
        self,
        world: WorldModel,
        state: State,
        memory: State,
        *,
        goal: Tensor | None = None,
        explore: bool = False,
    ) -> Decision:
        """The mode, or a sample if `explore`: by the memory's key, or by torch's generator if there is no memory.

        Its own dreams bring the numbers of all their steps with them, as `dice` [B, H, k] in the memory.
        The policy sees the state without its graph. `aux["raw"]` is the sample in the policy's own units.
        """
        view = self.view(world, state)
        with runtime.few_rows(len(view), self.dtype) as dtype:
            policy = self.actor(view.detach().to(dtype))
        raw = policy.sample(self._noise(memory, len(view))) if explore else policy.mode()
        if "dice" in memory:
            following = {"dice": memory["dice"][:, 1:]}
        elif memory:
            following = {**memory, "t": memory["t"] + 1}
        else:
            following = {}
        return Decision(self.to_codec(raw), following, {"raw": raw})

    def value(self, world: WorldModel, state: State, memory: State) -> Tensor:
        """See `Behaviour.value`."""
        return self.twohot.mean(self.critic(self.view(world, state).to(self.dtype)))

    def policy(self, feature: Tensor) -> Policy:
        """The distribution of actions for features [.., F], which give no gradient to the world."""
        return self.actor(feature.detach().to(self.dtype))

    def to_codec(self, raw: Tensor) -> Tensor:
        """A sample of the policy -> an action in the world's codec, within its bounds."""
        return raw if self.codec.is_discrete else self.action_middle + self.action_reach * within(raw)

    def _noise(self, memory: State, n: int) -> Tensor:
        """Numbers [n, k] of the kind the policy is sampled with."""
        if "dice" in memory:
            return memory["dice"][:, 0]
        if memory:
            draw = noise.uniform if self.codec.is_discrete else noise.normal
            return draw(memory["key"], memory["t"], self._num_dice)
        draw = torch.rand if self.codec.is_discrete else torch.randn
        return draw(n, self._num_dice, device=self.scale.low.device)

    @property
    def _num_dice(self) -> int:
        """k, random numbers that one decision takes."""
        return len(self.codec.groups) or self.codec.dim

    def after_update(self) -> None:
        """The slow critic follows."""
        slow, fast = tuple(self.slow.parameters()), tuple(self.critic.parameters())
        with torch.no_grad():
            torch._foreach_lerp_(slow, fast, self.config.slow_rate)

    def losses(self, world: WorldModel, batch: TimeStep, trace: State | None, parts: Sequence[str]) -> Losses:
        """Dreams from every row of the batch. `trace` None: the world has none to give and observes the rows.

        In train mode the running percentiles move.
        """
        trace = observed(world, batch) if trace is None else trace
        dreamed = self._dream(world, trace, batch)
        by_part, metrics, returns = self.dream_losses(dreamed, batch.mask.flatten(), parts)
        if "critic" in parts and self.config.replay_weight and batch.mask.shape[1] > 1:
            bootstrap = returns[:, 0].unflatten(0, batch.mask.shape)
            replayed = self.replay_loss(world.feature(trace), batch, bootstrap)
            by_part["critic"] = by_part["critic"] + self.config.replay_weight * replayed
            metrics["critic/replay_loss"] = replayed
        metrics |= {f"{part}/loss": loss for part, loss in by_part.items()}
        return Losses(by_part, {name: x.detach() for name, x in metrics.items()})

    def dream_losses(
        self, dreamed: Dream, mask: Tensor, parts: Sequence[str]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Losses by part, metrics, and returns [N, H] (detached) of a dream [N, H+1] whose rows count by `mask` [N].

        Column 0 of `dreamed.cont` says whether the first row goes on.
        """
        config = self.config
        count = mask.float()[:, None] / (mask.sum().clamp(min=1) * config.horizon)
        views = dreamed.view.detach().to(self.dtype)
        acted = views[:, :-1].contiguous()  # a slice would be multiplied dream by dream
        with torch.set_grad_enabled("critic" in parts and torch.is_grad_enabled()):
            log_p = self.critic(views).log_softmax(-1)
        if config.gradient == "dynamics":  # the return is differentiated, the critic's weights are not
            with held(self.critic):
                value = self.twohot.mean(self.critic(dreamed.view.to(self.dtype)))
        else:
            value = self.twohot.expected(log_p.detach().exp())
        returns = lambda_return(dreamed.reward, dreamed.cont, value, discount=config.discount, lam=config.lam)
        weight = alive_weight(dreamed.cont, discount=config.discount)[:, :-1] * count
        by_part, metrics = {}, {}
        if "actor" in parts:
            if self.training:
                self.scale.update(returns)
            policy, scale = self.policy(acted), self.scale()
            gain, entropy = (returns - value[:, :-1]) / scale, policy.entropy()
            if config.gradient == "reinforce":
                gain = gain.detach() * policy.log_prob(dreamed.aux["raw"].detach())
            by_part["actor"] = -(weight * (gain + config.entropy * entropy)).sum()
            metrics |= {"actor/entropy": (entropy * count).sum(), "dream/return_scale": scale}
        if "critic" in parts:
            by_part["critic"] = (weight * self._value_loss(log_p[:, :-1], returns, acted)).sum()
        metrics["dream/reward"] = (dreamed.reward[:, 1:] * count).sum()
        metrics["dream/return"] = (returns * count).sum()
        metrics["critic/value"] = (value[:, :-1] * count).sum()
        return by_part, metrics, returns.detach()

    def replay_loss(self, feature: Tensor, batch: TimeStep, bootstrap: Tensor) -> Tensor:
        """Value loss on recorded rows, a scalar: features [B, T, F], on their graph if they have one.

        `bootstrap` [B, T] is the return of the dream that began in each row. The last row of an episode has no
        return; the last column only bootstraps.
        """
        if batch.reward is None:
            raise ValueError("the value loss on recorded rows needs rewards; set replay_weight to 0")
        config, mask = self.config, batch.mask[:, :-1]
        is_last = episode_ends(batch.is_first, batch.terminated, batch.mask)
        returns = lambda_return(
            batch.reward,
            (~batch.terminated).float(),
            bootstrap,
            discount=config.discount,
            lam=config.lam,
            is_last=is_last,
        )
        feature = feature[:, :-1].to(self.dtype).contiguous()
        loss = self._value_loss(self.critic(feature).log_softmax(-1), returns, feature)
        return (loss * (mask & ~is_last[:, :-1])).sum() / mask.sum().clamp(min=1)

    def _value_loss(self, log_p: Tensor, target: Tensor, feature: Tensor) -> Tensor:
        """Cross entropy [..] to the target and, weighted, to what the slow critic expects."""
        if not self.config.slow_weight:
            return self.twohot.cross_entropy(log_p, target[..., None])[..., 0]
        with torch.no_grad():
            slow = self.twohot.mean(self.slow(feature.detach()))
        both = self.twohot.cross_entropy(log_p, torch.stack([target, slow], -1))
        return both[..., 0] + self.config.slow_weight * both[..., 1]

    def _dream(self, world: WorldModel, trace: State, batch: TimeStep) -> Dream:
        """[B T, H+1] from every row of the batch; column 0 of `cont` says whether that row goes on."""
        config, start = self.config, starts(trace)
        through = config.gradient == "dynamics"
        with (
            torch.set_grad_enabled(through and torch.is_grad_enabled()),
            held(world) if through else nullcontext(),
        ):
            recorded = config.start_cont == "recorded"
            first = (~batch.terminated).float().flatten() if recorded else world.judge(start)[1]
            n = tree.size(start)
            dice = self._noise({}, n * config.horizon).view(n, config.horizon, self._num_dice)
            carry = Carry(state=start, memory={"dice": dice})
            dreamed = dream(world, self, carry, config.horizon, through=through, explore=True)
        if first is not None:
            dreamed = replace(dreamed, cont=torch.cat([first[:, None], dreamed.cont[:, 1:]], 1))
        return replace(dreamed, cont=(dreamed.cont > 0.5).float()) if config.cont == "mode" else dreamed


def starts(trace: State) -> State:
    """Every row of a trace [B, T] as a state [B T] of its own, without graph; no two share noise."""
    state = tree.map(lambda x: x.detach().flatten(0, 1).clone(), trace)
    if "draw" in state:
        state["draw"] = torch.arange(len(state["draw"]), device=state["draw"].device)
    return state


@torch.no_grad()
def observed(world: WorldModel, batch: TimeStep) -> State:
    """The states [B, T] of a world that observes the rows of `batch` from blank."""
    state, states = world.start(tree.size(batch.is_first)), []
    for t in range(batch.is_first.shape[1]):
        row = batch.at(t)
        state = tree.where(row.mask, world.observe(tree.clone(state), row), state)
        states.append(state)
    return tree.stack(states, 1)


@contextmanager
def held(module: nn.Module) -> Iterator[None]:
    """Gradients pass through `module` to its inputs, but not to its parameters."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
