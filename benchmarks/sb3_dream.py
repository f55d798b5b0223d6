"""PPO of Stable-Baselines3, unchanged, learns only in a learned dream and then plays the real game.

    oneiro train vmc-takecover --size demo --run runs/demo
    python benchmarks/sb3_dream.py runs/demo

Several run folders are as many worlds; every one is dreamed in with each seed. Writes results/sb3_dream.json and .md.
"""

import argparse
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from evidence import facts, heading, write
from oneiro.agent import Agent
from oneiro.behaviour import Behaviour
from oneiro.behaviours.explore import HeldRandom
from oneiro.behaviours.outside import OutsidePolicy
from oneiro.envs import make
from oneiro.envs.sb3 import SB3VecEnv
from oneiro.evaluation.episodes import Scores, evaluate
from oneiro.evaluation.stats import summarize
from oneiro.recipes.dreams import dream_env
from oneiro.recipes.saved import open_run
from oneiro.training.run import Trained

HORIZON, TEMPERATURE, DREAMS = 525, 1.15, 64  # as vmc-takecover --size demo evolves its controller
PPO_SETTINGS: dict[str, Any] = {
    "n_steps": 128,
    "batch_size": 1024,
    "n_epochs": 4,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "device": "cpu",
}


def learn(run: Trained, steps: int, seed: int) -> tuple[PPO, list[dict[str, float]]]:
    """PPO after `steps` imagined steps, and its dreamed scores on the way."""
    env = dream_env(
        run,
        DREAMS,
        horizon=HORIZON,
        sees="feature",
        temperature=TEMPERATURE,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    vec = VecNormalize(VecMonitor(SB3VecEnv(env)), norm_obs=False, norm_reward=True)
    vec.seed(seed)
    model = PPO("MlpPolicy", vec, seed=seed, **PPO_SETTINGS)
    curve = []
    while model.num_timesteps < steps:
        model.learn(max(steps // 10, 1), reset_num_timesteps=False)
        episodes = model.ep_info_buffer or []
        score = float(sum(episode["r"] for episode in episodes)) / max(len(episodes), 1)
        curve.append({"steps": model.num_timesteps, "dreamed_score": round(score, 1)})
        print(f"seed {seed}: {model.num_timesteps:,} imagined steps, dreamed score {score:.0f}", flush=True)
    return model, curve


def play(run: Trained, behaviour: Behaviour, episodes: int) -> Scores:
    """Scores in the real game."""
    env = make(run.recipe.env)
    try:
        return evaluate(env, Agent(run.agent.world, behaviour).eval(), episodes=episodes, seed=1)
    finally:
        env.close()


def trial(path: Path, seed: int, steps: int, episodes: int) -> dict[str, Any]:
    """One world, one seed of PPO: before and after."""
    run = open_run(path)
    torch.set_num_threads(1)
    began, busy = time.perf_counter(), time.process_time()
    model, curve = learn(run, steps, seed)
    wall, cpu = time.perf_counter() - began, time.process_time() - busy
    scores = play(run, OutsidePolicy(model.predict), episodes)
    print(f"{path}, seed {seed}: {scores.summary.mean:.0f} in the real game", flush=True)
    return {
        "world": path.name,
        "seed": seed,
        "imagined_steps": model.num_timesteps,
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "curve": curve,
        "real": scores.summary.to_json(),
        "scores": scores.score,
    }


def rivals(path: Path, episodes: int) -> dict[str, Any]:
    """Random play of the same game, and the controller that the run evolved in its dream."""
    run = open_run(path)
    torch.set_num_threads(1)
    players: dict[str, Behaviour] = {
        "random": HeldRandom(hold=(1,)).build(run.spaces),
        "controller evolved by CMA-ES in the same dream": run.agent.behaviour,
    }
    return {name: play(run, behaviour, episodes).summary.to_json() for name, behaviour in players.items()}


def page(about: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """results/sb3_dream.md."""
    text = (
        f"{record['game']}. PPO sees the world's feature and never the real game while it learns; its rewards go "
        "through Stable-Baselines3's VecNormalize. Scores are of "
        f"{record['episodes']} real episodes each, means with 95 % intervals."
    )
    lines = [
        *heading(about, text),
        "",
        "| player | real score | imagined steps | learning: CPU time | wall time |",
        "|---|---|---|---|---|",
    ]
    for x in record["trials"]:
        real = x["real"]
        lines.append(
            f"| PPO, world {x['world']}, seed {x['seed']} | **{interval(real)}** | {x['imagined_steps']:,} | "
            f"{x['cpu_seconds']:.0f} s | {x['wall_seconds']:.0f} s |"
        )
    for world, players in record["rivals"].items():
        lines += [f"| {name}, world {world} | {interval(found)} | | | |" for name, found in players.items()]
    pooled = record["mean_over_seeds"]
    lines += [
        "",
        f"Mean over the seeds of PPO: {interval(pooled)}. The interval is over the seeds' means; the world is the "
        "same for all seeds (`oneiro train vmc-takecover --size demo`).",
        "",
        "One thread; wall time beyond CPU time is other work on the machine.",
    ]
    return lines


def interval(found: dict[str, float]) -> str:
    """817 (720 to 914); of a single number there is no interval."""
    if found["low"] is None:
        return f"{found['mean']:.0f}"
    return f"{found['mean']:.0f} ({found['low']:.0f} to {found['high']:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of vmc-takecover")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300_000, help="imagined steps of each PPO")
    parser.add_argument("--episodes", type=int, default=100, help="real episodes of each score")
    chosen = parser.parse_args()
    trials = [
        trial(path, seed, chosen.steps, chosen.episodes) for path in chosen.runs for seed in chosen.seeds
    ]
    about = facts("PPO of Stable-Baselines3 in a learned dream", shlex.join(["python", *sys.argv]))
    about["stable_baselines3"] = version("stable-baselines3")
    record = {
        **about,
        "game": open_run(chosen.runs[0]).recipe.env.describe(),
        "ppo": PPO_SETTINGS,
        "dream": {"horizon": HORIZON, "temperature": TEMPERATURE, "rows": DREAMS},
        "episodes": chosen.episodes,
        "trials": trials,
        "mean_over_seeds": summarize([x["real"]["mean"] for x in trials]).to_json(),
        "rivals": {path.name: rivals(path, chosen.episodes) for path in chosen.runs},
    }
    lines = page(about, record)
    write("sb3_dream", record, lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
