"""The films: truth beside dream, the agent in its dream, in several dreams, and in the real environment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import gymnasium
import numpy as np
import torch
from torch import Tensor

from oneiro import tree
from oneiro.agent import Agent
from oneiro.data.collect import play
from oneiro.data.episodes import Episode
from oneiro.dreaming import imagine
from oneiro.evaluation.animation import Film
from oneiro.evaluation.canvas import Panel, action_name, difference, draw
from oneiro.evaluation.open_loop import OpenLoopResult, picture, rows
from oneiro.evaluation.seeding import evaluating, renumber
from oneiro.spaces import to_uint8
from oneiro.types import Carry


@dataclass(frozen=True, kw_only=True)
class Style:
    """How films look and read."""

    scale: int = 3  # screen pixels per pixel of the picture
    fps: float = 12.0  # frames per second
    max_frames: int = 300  # of longer films every second, third, ... step is shown: they run faster
    names: tuple[str, ...] = ()  # of the actions; "left", "none", "right", ... are drawn as arrows
    unit: str = "score"  # what a reward counts, for example "tics"

    def shown(self, steps: int) -> set[int]:
        """Which of so many steps become frames: evenly spaced, the last one always."""
        return {*range(0, steps, -(-steps // self.max_frames)), steps - 1}


@dataclass(kw_only=True)
class _Dreamed:
    """One dream, step by step; step 0 is where it began."""

    image: list[np.ndarray] = field(default_factory=list)
    action: list[np.ndarray] = field(default_factory=list)
    cont: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    ended: bool = False


def agent_in_dream(
    agent: Agent,
    starts: Carry,
    horizon: int,
    temperature: float = 1.0,
    *,
    count: int = 3,
    seed: int = 0,
    style: Style = Style(),
) -> Film:
    """`count` dreams from the first of `starts`, side by side, each until it ends."""
    dreams = _dreams(agent, tree.take(starts, slice(0, count)), horizon, temperature, seed)
    titles = [f"dream {i + 1}" for i in range(len(dreams))]
    return _side_by_side(dreams, titles, style)


def dream_at_temperatures(
    agent: Agent,
    starts: Carry,
    horizon: int,
    temperatures: Sequence[float],
    *,
    seed: int = 0,
    style: Style = Style(),
) -> Film:
    """One dream from the same start at each temperature, side by side."""
    one = tree.take(starts, slice(0, 1))
    dreams = [_dreams(agent, one, horizon, temperature, seed)[0] for temperature in temperatures]
    return _side_by_side(dreams, [f"temperature {tau:g}" for tau in temperatures], style)


def agent_in_env(
    env: gymnasium.vector.VectorEnv,
    agent: Agent,
    seed: int,
    *,
    id: int = 0,
    explore: bool = False,
    style: Style = Style(),
) -> Film:
    """Play episode `id` of `seed` and show it (see `real_episode`)."""
    with evaluating(agent, seed=seed):
        (episode,) = play(env, agent, [id], seed=seed, explore=explore, record=True)
    return real_episode(agent, episode, style=style)


def real_episode(agent: Agent, episode: Episode, *, style: Style = Style()) -> Film:
    """A recorded episode three ways: what happened, what the world sees, and what it had expected to see.

    The expectation is one imagined step at temperature 0 from the state before, by the action taken.
    """
    world, score = agent.world, 0.0
    frames, shown = [], style.shown(len(episode))
    with evaluating(agent, seed=0):
        batch = tree.map(lambda x: x[:, None], rows(episode, 0, len(episode), world.device))  # [T 1 ..]
        state = world.start(1)
        for t in range(len(episode)):
            row = tree.take(batch, t)
            expected, cont = None, 1.0
            if t:
                ahead = world.step(tree.clone(state), row.action, 0.0)  # type: ignore[arg-type]
                expected = picture(world, ahead.state)
                cont = 1.0 if ahead.cont is None else float(ahead.cont[0])
            state = world.observe(state, row)
            seen = picture(world, state)
            score += float(episode.reward[t])
            if t not in shown:
                continue
            real = Panel(
                image=episode.obs["image"][t],
                title="real",
                tone="real",
                action=action_name(episode.action[t], style.names) if t else None,
                note=f"{score:,.0f} {style.unit}",
                dimmed=_ending(episode) if t == len(episode) - 1 else "",
            )
            inside = Panel(image=_pixels(seen), title="seen", tone="dream", note=f"step {t}")
            coming = Panel(
                image=_pixels(seen if expected is None else expected),
                title="expected",
                tone="dream",
                note=f"goes on {cont:.0%}",
                bar=cont,
            )
            frames.append(draw([[real, inside, coming]], style.scale))
    return Film(frames=np.stack(frames), fps=style.fps)


def open_loop_film(
    result: OpenLoopResult,
    *,
    count: int = 2,
    style: Style = Style(),
) -> Film:
    """Truth | dream | difference of the first sample of the first `count` episodes, one below the other."""
    error = difference(result.dream[:count, 0], result.truth[:count])
    frames = []
    for t in range(result.truth.shape[1]):
        grid = []
        for n in range(min(count, len(result.truth))):
            psnr = f"{result.psnr[n, 0, t]:.1f} dB"
            grid.append(
                [
                    Panel(image=result.truth[n, t], title="truth", tone="real", note=f"step {t}"),
                    Panel(image=result.dream[n, 0, t], title="dream", tone="dream", note=psnr),
                    Panel(image=error[n, t], title="difference"),
                ]
            )
        frames.append(draw(grid, style.scale, has_bar=False))
    return Film(frames=np.stack(frames), fps=style.fps)


def open_loop_strip(
    results: Mapping[str, OpenLoopResult], at: Sequence[int], *, episode: int = 0, scale: int = 3
) -> np.ndarray:
    """uint8 [H, W, 3]: the truth at the columns `at`, and below it each named dream of that episode."""
    first = next(iter(results.values()))
    rows = [("truth", "real", first.truth[episode], None)]
    rows += [(name, "dream", r.dream[episode, 0], r.psnr[episode, 0]) for name, r in results.items()]
    grid = [
        [
            Panel(
                image=images[t],
                title=name if j == 0 else "",
                tone=tone,
                note=f"step {t}" if psnr is None else f"{psnr[t]:.1f} dB",
            )
            for j, t in enumerate(at)
        ]
        for name, tone, images, psnr in rows
    ]
    return draw(grid, scale, has_bar=False)


def _dreams(agent: Agent, starts: Carry, horizon: int, temperature: float, seed: int) -> list[_Dreamed]:
    """Dream from every row until each has ended by a drawn `terminated`, or to the horizon."""
    world, n = agent.world, tree.size(starts)
    chance = torch.rand(horizon, n, generator=torch.Generator().manual_seed(seed))
    with evaluating(agent, seed=seed):
        carry = Carry(state=renumber(tree.clone(starts.state)), memory=tree.clone(starts.memory))
        dreams = [_Dreamed() for _ in range(n)]
        _record(dreams, picture(world, carry.state), None, None, None)
        steps = imagine(world, agent.behaviour, carry, temperature=temperature)
        for t in range(horizon):
            decision, prediction, carry = next(steps)
            _record(dreams, picture(world, carry.state), decision.action, prediction.reward, prediction.cont)
            for dream, drawn in zip(dreams, chance[t].tolist(), strict=True):
                dream.ended = dream.ended or drawn >= dream.cont[-1]
            if all(dream.ended for dream in dreams):
                break
    return dreams


def _record(
    dreams: list[_Dreamed],
    image: Tensor,
    action: Tensor | None,
    reward: Tensor | None,
    cont: Tensor | None,
) -> None:
    for i, dream in enumerate(dreams):
        if dream.ended:
            continue
        dream.image.append(_pixels(image[i : i + 1]))
        dream.action.append(np.zeros(0) if action is None else action[i].cpu().numpy())
        dream.cont.append(1.0 if cont is None else float(cont[i]))
        last = dream.score[-1] if dream.score else 0.0
        dream.score.append(last + (0.0 if reward is None else float(reward[i])))


def _side_by_side(dreams: list[_Dreamed], titles: list[str], style: Style) -> Film:
    frames = []
    for t in sorted(style.shown(max(len(dream.image) for dream in dreams))):
        panels = []
        for dream, title in zip(dreams, titles, strict=True):
            at = min(t, len(dream.image) - 1)
            over = dream.ended and at == len(dream.image) - 1
            panels.append(
                Panel(
                    image=dream.image[at],
                    title=title,
                    tone="dream",
                    action=action_name(dream.action[at], style.names) if at else None,
                    note=f"{dream.score[at]:,.0f} {style.unit}",
                    bar=dream.cont[at],
                    dimmed="the dream ends" if over else "",
                )
            )
        frames.append(draw([panels], style.scale))
    return Film(frames=np.stack(frames), fps=style.fps)


def _ending(episode: Episode) -> str:
    return "the game ends" if episode.terminated[-1] else "time is up"


def _pixels(image: Tensor) -> np.ndarray:
    """Floats [1, C, H, W] -> uint8 [C, H, W]."""
    return to_uint8(image)[0].cpu().numpy()
