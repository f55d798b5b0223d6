"""The world of DreamerV3: a recurrent state-space model with categorical latents that explains what it sees.

Paper: Hafner, Pasukonis, Ba, Lillicrap 2025, "Mastering diverse control tasks through world models" (Nature;
arXiv 2301.04104). Official code: danijar/dreamerv3 ("code" below).

    obs --encoder--> tokens --.
    (h, z), action --core--> h' --+--posterior--> z'      observed
                              `--prior---------> z'       imagined
    feature = [h, z] --> observation, reward, continuation

Deviations from the code:
1. `judge` and `Prediction.cont` give the probability of not being terminal. The head is trained on
   (1 - terminal)(1 - 1/horizon) as in the code; the factor is divided out again and the result cut at 1.
2. Actions of a Box are mapped from its bounds to -1..1 (in the code an environment wrapper does this).
3. h is carried in float32 when layers compute in bfloat16.
4. Padding is masked; the code has no padding.
Not implemented: the options of the code that its released configs do not use.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneiro import runtime, tree
from oneiro.nets import onehot
from oneiro.nets.block_rssm import BlockRSSM
from oneiro.nets.cnn import ImageDecoder, ImageEncoder
from oneiro.nets.layers import MLP, Linear
from oneiro.nets.observations import Modalities, ObsDecoder, ObsEncoder
from oneiro.nets.prepared import Prepared
from oneiro.nets.rssm import RSSM
from oneiro.nets.twohot import TwoHot
from oneiro.runtime import compute_dtype
from oneiro.spaces import Spaces
from oneiro.types import Losses, Obs, Prediction, State, TimeStep
from oneiro.world import Observe, Step, WorldModel

Encode = Callable[[Obs], Tensor]
Head = Callable[[Tensor], Tensor]
Size = Literal["1m", "12m", "25m", "50m", "100m", "200m", "400m"]
OWN_TERMS = ("reward", "cont", "kl", "kl_dyn", "kl_rep", "entropy_prior", "entropy_posterior", "loss")
"""Names of the loss's terms and metrics; an observation of such a name is logged as `world/obs:NAME`."""
UNITS = {"1m": 64, "12m": 256, "25m": 384, "50m": 512, "100m": 768, "200m": 1024, "400m": 1536}


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """What the config of every generation has: z and the weights of the loss."""

    stoch: int = 32  # categorical variables in z
    unimix: float = 0.01  # share of the uniform distribution in every categorical of z
    bins: int = 255  # bins of the reward
    horizon: float = 333.0  # the continuation is trained towards 1 - 1 / horizon; inf = towards 1
    free_nats: float = 1.0  # KL below this is not penalised (nats, per time step)
    image_weight: float = 1.0  # of the squared error of pictures, summed over pixels
    vector_weight: float = 1.0  # of the error of vectors and categories
    reward_weight: float = 1.0  # of the cross entropy of the reward
    cont_weight: float = 1.0  # of the cross entropy of the continuation
    dyn_weight: float = 1.0  # of the KL that draws the prior to the posterior
    rep_weight: float = 0.1  # of the KL that draws the posterior to the prior
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of layers; auto = as the device

    def __post_init__(self) -> None:
        if self.stoch < 1:
            raise ValueError(f"stoch must be at least 1, got {self.stoch}")
        if not 0 < self.unimix < 1:
            raise ValueError(
                f"unimix must lie between 0 and 1, got {self.unimix}; 0 would let the KL be infinite"
            )
        if self.horizon <= 1:
            raise ValueError(f"horizon must be more than 1 step, got {self.horizon}")


@dataclass(frozen=True, kw_only=True)
class DreamerV3Config(GenerationConfig):
    """The world of DreamerV3. A size sets all widths; a width other than 0 replaces that of the size."""

    size: Size = "12m"  # parameters with actor and critic
    units: int = 0  # d, width of hidden layers; 0 = by size (64 to 1536)
    deter_dim: int = 0  # width of h; 0 = 8 units
    classes: int = 0  # classes of each; 0 = units / 16
    depth: int = 0  # channels of the CNNs, times 2, 3, 4, 4; 0 = units / 16
    blocks: int = 8  # blocks of the recurrent layer
    vector_layers: int = 3  # hidden layers of the encoder and decoder of vectors

    def __post_init__(self) -> None:
        if self.size not in UNITS:
            raise ValueError(f"size = {self.size!r}: choose one of {', '.join(UNITS)}")
        super().__post_init__()
        if self.blocks < 1 or min(self.units, self.deter_dim, self.classes, self.depth) < 0:
            raise ValueError("blocks must be at least 1; other widths positive, or 0 for that of the size")
        if self.deter % self.blocks:
            raise ValueError(f"deter_dim {self.deter} must be a multiple of blocks {self.blocks}")
        if not 1 <= self.num_classes < 255:
            raise ValueError(f"classes must be 1 to 254, got {self.num_classes}")

    @property
    def width(self) -> int:
        """d, the width of hidden layers."""
        return self.units or UNITS[self.size]

    @property
    def deter(self) -> int:
        """Width of h."""
        return self.deter_dim or 8 * self.width

    @property
    def num_classes(self) -> int:
        """Classes of each variable of z."""
        return self.classes or self.width // 16

    @property
    def cnn_depth(self) -> int:
        """Channels of the CNNs before they are multiplied."""
        return self.depth or self.width // 16

    def build(self, spaces: Spaces) -> "DreamerV3":
        """The world for these spaces; OneiroError if it cannot take them."""
        return DreamerV3(self, spaces, self._networks(spaces))

    def _networks(self, spaces: Spaces) -> "Networks":
        d, depth, mults, seen = self.width, self.cnn_depth, (2, 3, 4, 4), Modalities(spaces, "DreamerV3")
        stoch_dim, numbers, token_dim = self.stoch * self.num_classes, sum(seen.widths.values()), 0
        eye = canvas = reader = writer = None
        if seen.images:
            eye = ImageEncoder(seen.image_shape, depth, mults)
            canvas = ImageDecoder(seen.image_shape, self.deter, stoch_dim, 2 * d, depth, mults, self.blocks)
            token_dim += eye.out_dim
        if seen.vectors:
            reader = MLP(numbers, d, self.vector_layers)
            writer = MLP(stoch_dim + self.deter, d, self.vector_layers)
            token_dim += d
        dynamics = BlockRSSM(
            deter_dim=self.deter,
            stoch=self.stoch,
            classes=self.num_classes,
            units=d,
            blocks=self.blocks,
            action_dim=spaces.action.dim,
            token_dim=token_dim,
            unimix=self.unimix,
        )
        return Networks(
            encoder=ObsEncoder(seen, eye, reader, token_dim),
            dynamics=dynamics,
            decoder=ObsDecoder(seen, canvas, writer, {name: Linear(d, n) for name, n in seen.widths.items()}),
            reward=MLP(self.deter + stoch_dim, d, 1, self.bins, scale=0.0),
            cont=MLP(self.deter + stoch_dim, d, 1, 1),
            twohot=TwoHot(self.bins),
        )


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What a generation of DreamerV3 is made of; widths fit those of its config."""

    encoder: ObsEncoder
    dynamics: RSSM
    decoder: ObsDecoder
    reward: nn.Module
    cont: nn.Module
    twohot: TwoHot


class Eyes(NamedTuple):
    """What `observe` works with: an encoder, the weights of the core, and the state in which an episode begins."""

    encode: Encode
    cell: Any
    deter: Tensor  # [1, D]
    stoch: Tensor  # [1, S C]


class Imagining(NamedTuple):
    """What `step` works with: the weights of the core and the networks that read its state."""

    cell: Any
    prior: Head
    reward: Head
    cont: Head


class DreamerV3(WorldModel):
    """State: deter [B, D], stoch [B, S, C] one-hot, draw [B] (see `WorldModel`; rows without it are independent)."""

    action_middle: Tensor
    action_reach: Tensor

    def __init__(self, config: GenerationConfig, spaces: Spaces, networks: Networks) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        self.dtype = compute_dtype(config.compute_dtype)
        self.encoder, self.dynamics, self.decoder = networks.encoder, networks.dynamics, networks.decoder
        self.reward, self.cont, self.twohot = networks.reward, networks.cont, networks.twohot
        self.feature_dim = sum(x.numel() for x in self.dynamics.initial(1))
        low, high = torch.tensor(spaces.action.low), torch.tensor(spaces.action.high)
        half = (high - low) / 2
        self.register_buffer("action_middle", (low + high) / 2, persistent=False)
        self.register_buffer("action_reach", torch.where(half > 0, half, 1.0), persistent=False)

    def start(self, n: int) -> State:
        """The beginning of an episode; every row its own draw."""
        deter, stoch = (x.detach() for x in self.dynamics.initial(n))
        return {"deter": deter, "stoch": stoch, "draw": torch.arange(n, device=deter.device)}

    def observe(self, state: State, row: TimeStep) -> State:
        """One step of the core, then the posterior of what is seen."""
        with runtime.few_rows(len(row.is_first), self.dtype) as dtype:
            return self._follow(self._eyes(dtype), state, row)

    def observer(self) -> Observe:
        """`observe` with the weights of the core and the kernels of pictures made once for each dtype."""
        parameters = [*self.encoder.parameters(), *self.dynamics.parameters()]
        eyes: dict[torch.dtype, Prepared[Eyes]] = {}

        @torch.no_grad()
        def observe(state: State, row: TimeStep) -> State:
            with runtime.few_rows(len(row.is_first), self.dtype) as dtype:
                if dtype not in eyes:
                    make = torch.no_grad()(lambda: self._eyes(dtype, self.encoder.prepared(self.dtype)))
                    eyes[dtype] = Prepared(make, parameters)
                return self._follow(eyes[dtype].get(), state, row)

        return observe

    def _eyes(self, dtype: torch.dtype, encode: Encode | None = None) -> Eyes:
        """For a recurrent part in `dtype`; `encode` None: the encoder as it is."""
        encode = encode or (lambda obs: self.encoder(obs, self.dtype))
        return Eyes(encode, self.dynamics.cell(dtype), *(x.flatten(1) for x in self.dynamics.initial(1)))

    def _follow(self, eyes: Eyes, state: State, row: TimeStep) -> State:
        model, first = self.dynamics, row.is_first[:, None]
        tokens = eyes.encode(row.obs)
        uniform = torch.rand(len(first), self.config.stoch, device=tokens.device)
        before = (
            torch.where(first, eyes.deter, state["deter"]),
            torch.where(first, eyes.stoch, state["stoch"].flatten(1)),
        )
        push = model.push(eyes.cell, self._action(row.action) * ~first)
        deter, stoch, _ = model.follow(eyes.cell, *before, push, model.see(eyes.cell, tokens), uniform)
        return {**state, "deter": deter, "stoch": stoch}

    def absorb(self, state: State, batch: TimeStep) -> State:
        """The posterior over all rows at once."""
        with runtime.few_rows(len(batch.is_first), self.dtype) as dtype:
            deter, stoch, _ = self._posterior(batch, state, dtype)
        return {**state, "deter": deter[:, -1], "stoch": stoch[:, -1]}

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        """One step of the core, then the prior. A temperature divides the logits of z; 0 takes the likeliest."""
        return self._advance(self._imagining(), state, action, temperature)

    def stepper(self, *, judges: bool = True) -> Step:
        """`step` with all weights cast once; without `judges` its predictions have neither reward nor cont."""

        def cast(net: nn.Module) -> Head:
            return net.cast(self.dtype) if isinstance(net, MLP) else net

        parts = self.dynamics, self.reward, self.cont
        made = Prepared(
            torch.no_grad()(lambda: self._imagining(cast)), [x for part in parts for x in part.parameters()]
        )

        @torch.no_grad()
        def step(state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
            return self._advance(made.get(), state, action, temperature, judges)

        return step

    def _imagining(self, cast: Callable[[nn.Module], Head] = lambda net: net) -> Imagining:
        nets = (cast(net) for net in (self.dynamics.prior_net, self.reward, self.cont))
        return Imagining(self.dynamics.cell(self.dtype), *nets)

    def _advance(
        self, nets: Imagining, state: State, action: Tensor, temperature: float, judges: bool = True
    ) -> Prediction:
        model, stoch = self.dynamics, state["stoch"]
        push = model.push(nets.cell, self._action(action))
        deter = model.core(nets.cell, state["deter"], stoch.flatten(1), push)
        probs = model.mixed(nets.prior(deter.to(self.dtype)))
        if temperature == 0:
            uniform = probs.new_zeros(probs.shape[:2])  # not used
        elif "draw" in state:
            uniform = onehot.uniform_of_draw(state["draw"], probs.shape[1])
        else:
            uniform = torch.rand(probs.shape[:2], device=probs.device)
        stoch = onehot.straight_through(onehot.pick(probs, uniform, temperature), probs)
        following = {**state, "deter": deter, "stoch": stoch}
        return Prediction(following, *(self._judge(nets, following) if judges else (None, None)))

    def feature(self, state: State) -> Tensor:
        """[h, z], float32."""
        return torch.cat([state["deter"], state["stoch"].flatten(-2)], -1)

    def judge(self, state: State) -> tuple[Tensor, Tensor]:
        """Mean of the reward, probability of not being terminal."""
        return self._judge(self, state)

    def _judge(self, nets: "Imagining | DreamerV3", state: State) -> tuple[Tensor, Tensor]:
        parts = state["deter"], state["stoch"].flatten(-2)
        feature = torch.cat([x.to(self.dtype) for x in parts], -1)
        alive = torch.sigmoid(nets.cont(feature)[..., 0]) / (1 - 1 / self.config.horizon)
        return self.twohot.mean(nets.reward(feature)), alive.clamp(max=1)

    def decode(self, state: State) -> Obs:
        """Pictures in 0..1, vectors as they are, categories as the one-hot of the likeliest."""
        deter, stoch = state["deter"], state["stoch"].flatten(-2)
        lead = deter.shape[:-1]
        obs = self.decoder(*(x.reshape(-1, x.shape[-1]).to(self.dtype) for x in (deter, stoch)))
        return {name: x.unflatten(0, lead) for name, x in obs.items()}

    def memo(self, state: State) -> dict[str, Tensor]:
        """h in half precision, z as the classes of its variables (255: none)."""
        return {"deter": state["deter"].half(), "stoch": onehot.to_index(state["stoch"])}

    def recall(self, memo: dict[str, Tensor], n: int) -> State:
        """The state that `memo` kept; where all is zero nothing was kept, and an episode begins."""
        start = self.start(n)
        kept = (memo["deter"] != 0).any(-1) | (memo["stoch"] != 0).any(-1)  # [n]
        found = {"deter": memo["deter"].float()}
        found["stoch"] = onehot.from_index(memo["stoch"], self.dynamics.shape[1])
        return {**start, **tree.where(kept, found, {name: start[name] for name in found})}

    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        """One scalar: errors of observations, reward and continuation, and the two KLs, averaged over known rows."""
        if batch.reward is None:
            raise ValueError("DreamerV3 needs rewards; this data has none")
        config = self.config
        state = before if before is not None else self.start(len(batch.is_first))
        deter, stoch, posterior = self._posterior(batch, state, self.dtype)
        trace = {"deter": deter, "stoch": stoch}
        feature = self.feature(trace).to(self.dtype)
        h, z = feature.split((deter.shape[-1], feature.shape[-1] - deter.shape[-1]), -1)
        flat = tree.map(lambda x: x.flatten(0, 1), (h, z, batch.obs))
        errors = {_term(k): x.unflatten(0, batch.mask.shape) for k, x in self.decoder.errors(*flat).items()}
        errors["reward"] = self.twohot.loss(self.reward(feature), batch.reward)
        alive = (~batch.terminated).float() * (1 - 1 / config.horizon)
        errors["cont"] = F.binary_cross_entropy_with_logits(
            self.cont(feature)[..., 0], alive, reduction="none"
        )
        prior = self.dynamics.prior(h, self.dtype)
        errors["kl_dyn"], errors["kl_rep"] = onehot.kl_balanced(posterior, prior, config.free_nats)
        weight, scales = batch.mask / batch.mask.sum().clamp(min=1), self._weights()
        means = {name: (error * weight).sum() for name, error in errors.items()}
        total = sum(scales[name] * mean for name, mean in means.items())
        assert isinstance(total, Tensor)
        metrics = {f"world/{name}": mean.detach() for name, mean in means.items()}
        with torch.no_grad():
            metrics["world/kl"] = (onehot.kl(posterior, prior) * weight).sum()
            metrics["world/entropy_prior"] = (onehot.entropy(prior) * weight).sum()
            metrics["world/entropy_posterior"] = (onehot.entropy(posterior) * weight).sum()
            metrics["world/loss"] = total.detach()
        after = {**state, "deter": deter[:, -1], "stoch": stoch[:, -1]}
        return Losses({"all": total}, metrics, trace, tree.detach(after))

    def _weights(self) -> dict[str, float]:
        """Of every term of the loss."""
        config, seen = self.config, self.decoder.modalities
        own = {"reward": config.reward_weight, "cont": config.cont_weight}
        own |= {"kl_dyn": config.dyn_weight, "kl_rep": config.rep_weight}
        images = {_term(name): config.image_weight for name in seen.images}
        return images | {_term(name): config.vector_weight for name in seen.vectors} | own

    def _posterior(self, batch: TimeStep, state: State, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """(deter [B, T, D], stoch [B, T, S, C], posterior probabilities) of rows [B, T] that follow `state`.

        `dtype` is that of the recurrent part.
        """
        lead = batch.is_first.shape
        obs = {name: x.flatten(0, 1) for name, x in batch.obs.items()}
        tokens = self.encoder(obs, self.dtype).unflatten(0, lead)
        action = self._action(batch.action) * ~batch.is_first[..., None]
        uniform = torch.rand(*lead, self.config.stoch, device=tokens.device)
        cell = self.dynamics.cell(dtype)
        return self.dynamics.scan(
            cell, state["deter"], state["stoch"], tokens, action, batch.is_first, batch.mask, uniform
        )

    def _action(self, action: Tensor | None) -> Tensor:
        """Bounds of a Box to -1..1, and what lies outside to the bound (no gradient through the size)."""
        if action is None:
            raise ValueError("DreamerV3 needs actions; this data has none")
        if not self.spaces.action.is_discrete:
            action = (action - self.action_middle) / self.action_reach
        return action / action.detach().abs().clamp(min=1)


def _term(name: str) -> str:
    """What the error of an observation is called: its name, unless the loss has a term or a metric of that name."""
    return f"obs:{name}" if name in OWN_TERMS or name.startswith("obs:") else name
