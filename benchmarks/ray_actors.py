"""Four experience actors through Ray, one of them killed while it plays: results/ray.{json,md}.

    python benchmarks/ray_actors.py

Trains the smallest DreamerV3 on CartPole with 4 actors, sends SIGKILL to the process of one at two fifths of the way,
and checks afterwards: every step was made, the updates are those of the train ratio, and every stored row is what a
fresh environment gives for the seed and the actions of its episode. Then speed, by turns: no actors, 4 actors, again.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from evidence import Trial, facts, measured, read_usage, write
from oneiro.data.collect import episode_seeds
from oneiro.data.replay import Replay
from oneiro.data.replay_episodes import ReplayEpisodes
from oneiro.recipes.saved import open_run
from oneiro.spaces import ActionCodec
from oneiro.training.log import read_metrics
from oneiro.training.recipe import Recipe

ROOT = Path("runs/ray")
ENV = ("--env.id", "CartPole-v1", "--env.num", "4", "--env.workers", "sync", "--runtime.threads", "1")
ACTORS = ("--schedule.online.actors.num", "4")
STEPS, RATIO = "--schedule.online.steps", "--schedule.online.train-ratio"
SAVES = ("--checkpoint.minutes", "0.1", "--checkpoint.keep", "1000000")


def trial(name: str, *options: str) -> Trial:
    """A run of the smallest DreamerV3."""
    options = (*ENV, *options)
    return Trial("", name, 0, options, recipe="dreamerv3-gym", size="smoke", root=ROOT)


def train(run: Trial) -> float:
    """Seconds it took; a run that is there already is not made again."""
    file = run.path / "usage.json"
    if not file.exists():
        measured([*run.command, "--quiet"], file, threads=1)
    return read_usage(file)["seconds"]


# -- one is killed ---------------------------------------------------------------------------------------------


def killed(steps: int, ratio: float) -> dict[str, Any]:
    """Train with 4 actors, kill one at two fifths of the way, check what is there."""
    run = trial("killed", *ACTORS, STEPS, str(steps), RATIO, str(ratio), *SAVES)
    note = run.path / "killed.json"
    if not note.exists():
        killer = threading.Thread(target=kill_one, args=(run.path, steps * 2 // 5, note), daemon=True)
        killer.start()
    seconds = train(run)
    return {"seconds": seconds, **json.loads(note.read_text()), **check(run.path)}


def actors() -> list[psutil.Process]:
    """Processes of Ray actors below this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[0].startswith("ray::RemoteActor"):
                found.append(process)
        except (psutil.Error, IndexError):
            continue
    return found


def kill_one(path: Path, step: int, note: Path) -> None:
    """SIGKILL to the second actor as soon as `step` steps are logged, and what was seen of it."""
    while steps_of(path) < step:
        time.sleep(0.05)
    before = actors()
    at, victim = steps_of(path), before[1]
    os.kill(victim.pid, signal.SIGKILL)
    began = time.monotonic()
    seen = {"actors": len(before), "killed_at_step": at, "replaced_after": "the run's end"}
    note.write_text(json.dumps(seen))
    known = {process.pid for process in before}
    while not any(process.pid not in known for process in actors()):
        time.sleep(0.05)
    note.write_text(json.dumps({**seen, "replaced_after": f"{time.monotonic() - began:.1f} s"}))


def steps_of(path: Path) -> int:
    """Steps of the last line of the log."""
    log = path / "metrics.jsonl"
    return max((int(line["step"]) for line in lines_of(path)), default=0) if log.exists() else 0


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Lines of the online stage's log."""
    return [line for line in read_metrics(path / "metrics.jsonl") if "online/updates" in line]


def check(path: Path) -> dict[str, Any]:
    """AssertionError unless steps, updates and rows are right; what was counted."""
    run = open_run(path)
    stage, last = run.recipe.schedule.online, lines_of(path)[-1]
    states = [json.loads(f.read_text())["state"]["done"] for f in path.glob("checkpoint/0*/state.json")]
    since = {done["since"] for done in states if "since" in done}
    assert len(since) == 1, since
    expected = stage.updates(int(last["step"]), since.pop())
    assert stage.steps <= last["step"] == run.replay.rows, (stage.steps, last["step"], run.replay.rows)
    assert last["online/updates"] == expected, (last["online/updates"], expected)
    found = streams(run.replay, run.recipe)
    episodes = ReplayEpisodes(run.replay)
    cut = [id for id in episodes.ids.tolist() if "abandoned" in episodes.info(id)]
    assert found["unfinished"] == len(cut) + found["still_played"], found
    assert len(cut) <= last["online/crashed"], (cut, last)
    scored = sum("episode/score" in line for line in read_metrics(path / "metrics.jsonl"))
    assert scored == found["finished"] == last["online/episodes"], (scored, found, last)
    return {
        "steps": int(last["step"]),
        "updates": int(last["online/updates"]),
        "updates_expected": expected,
        "crashed": int(last["online/crashed"]),
        "cut_off": len(cut),
        "checkpoints": len(states),
        **found,
    }


def streams(replay: Replay, recipe: Recipe) -> dict[str, int]:
    """Play every stored episode again from its seed and its actions; AssertionError where a row differs."""
    env, ids = replace(recipe.env, num=1).env(), []
    codec = ActionCodec.of(env.action_space)
    finished = unfinished = still_played = 0
    for stream, (first, stop) in enumerate(replay.spans.tolist()):
        assert first == 0, "the oldest rows were dropped; nothing to begin from"
        rows = replay.read(replay.locate(np.array([[stream, 0]]), stop))
        own = [pair for s in replay.streams[stream].segments.values() for pair in s.firsts]
        begins = [int(row) for row, _ in own]
        assert begins == rows.is_first[0].nonzero()[:, 0].tolist()
        ids += [int(id) for _, id in own]
        for (begin, id), end in zip(own, [*begins[1:], stop], strict=True):
            is_over = again(env, codec, rows, int(begin), int(end), episode_seeds(recipe.seed, int(id))[0])
            finished += is_over
            unfinished += not is_over
            still_played += not is_over and int(end) == stop
    env.close()
    assert len(set(ids)) == len(ids), "two episodes have one id"
    return {
        "rows": replay.rows,
        "episodes": len(ids),
        "finished": finished,
        "unfinished": unfinished,
        "still_played": still_played,
    }


def again(env: Any, codec: ActionCodec, rows: Any, begin: int, end: int, seed: int) -> bool:
    """Rows begin .. end as an episode of `seed`; True if it is over after them."""
    obs, _ = env.reset(seed=seed)
    reward, terminated, truncated = 0.0, False, False
    for t in range(begin, end):
        is_over = terminated or truncated
        assert not is_over, f"row {t} goes on after the end of its episode"
        if t > begin:
            told = codec.to_env(rows.action[:, t])[0]
            obs, reward, terminated, truncated, _ = env.step(told.item() if told.ndim == 0 else told)
        assert all(np.array_equal(obs[k], rows.obs[k][0, t].numpy()) for k in obs), f"row {t} differs"
        assert rows.reward[0, t] == np.float32(reward), f"reward of row {t} differs"
        assert rows.terminated[0, t] == terminated, f"end of row {t} differs"
    return terminated or truncated


# -- how fast --------------------------------------------------------------------------------------------------


def speed(turns: int, ratio: float, steps: int) -> dict[str, Any]:
    """Steps a second of both, by turns."""
    found: dict[str, list[float]] = {"none": [], "four": []}
    walls: dict[str, list[float]] = {"none": [], "four": []}
    for turn in range(turns):
        for name, options in (("none", ()), ("four", ACTORS)):
            run = trial(f"{name}-{ratio:g}-{turn}", *options, STEPS, str(steps), RATIO, str(ratio))
            walls[name].append(train(run))
            learning = [line for line in lines_of(run.path) if line["online/updates"]]
            first, last = learning[0], learning[-1]
            found[name].append(round((last["step"] - first["step"]) / (last["time"] - first["time"]), 1))
    return {"train_ratio": ratio, "steps": steps, "steps_per_second": found, "wall_seconds": walls}


def page(record: dict[str, Any]) -> list[str]:
    """results/ray.md."""
    k = record["killed"]
    lines = [
        "# Experience actors through Ray",
        "",
        f"`{record['command']}` at commit {record['commit']}. {record['hardware']}, 2 cores shared with other work "
        f"(load {record['load']} at the end), "
        f"torch {record['torch']}, Ray {record['ray']}. DreamerV3 `--size smoke`, CartPole, 4 slots, seed 0, "
        "one thread.",
        "",
        "## One of four actors is killed",
        "",
        "| | |",
        "|---|---|",
        f"| actors, SIGKILL to one after | {k['actors']}, {k['killed_at_step']:,} steps |",
        f"| the process of its successor was there after | {k['replaced_after']} |",
        f"| steps made | {k['steps']:,} |",
        f"| updates made, updates the train ratio asks for | {k['updates']:,}, {k['updates_expected']:,} |",
        f"| rows stored, in episodes | {k['rows']:,}, {k['episodes']:,} |",
        "| rows that a fresh environment does not give for the episode's seed and actions | 0 |",
        f"| episodes that ended by themselves | {k['finished']:,} |",
        f"| episodes cut off and marked so | {k['cut_off']} |",
        f"| episodes still being played at the end | {k['still_played']} |",
        f"| `online/crashed` | {k['crashed']} |",
        f"| wall time, start of Ray and evaluation included | {k['seconds']:.0f} s |",
        "",
    ]
    return lines + (page_of_speed(record["speed"]) if record["speed"] else [])


def page_of_speed(parts: list[dict[str, Any]]) -> list[str]:
    """The second half."""
    lines = [
        "## Speed",
        "",
        "Environment steps a second from the first update on, by turns; wall time of the whole command.",
        "",
        "| train ratio | steps | no actors | 4 actors | ratio | wall: no actors | wall: 4 actors |",
        "|---|---|---|---|---|---|---|",
    ]
    for part in parts:
        rate, wall = part["steps_per_second"], part["wall_seconds"]
        gain = sum(rate["four"]) / sum(rate["none"])
        cells = [" / ".join(f"{x:g}" for x in rate[n]) for n in ("none", "four")]
        cells += [f"{gain:.2f}", *(" / ".join(f"{x:.0f} s" for x in wall[n]) for n in ("none", "four"))]
        lines.append(f"| {part['train_ratio']:g} | {part['steps']:,} | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        "Learner and actors share the two cores here, so this says what actors cost on one machine, not what more "
        "machines bring. That was not measured.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=4000, help="of the run in which an actor is killed")
    parser.add_argument("--ratio", type=float, default=16.0, help="its train ratio")
    parser.add_argument(
        "--turns", type=int, default=2, help="runs of each kind for the speed; 0 = only check"
    )
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    command = " ".join(["python", *sys.argv])
    record = facts("Experience actors through Ray", command) | {"ray": version("ray")}
    record["killed"] = killed(wanted.steps, wanted.ratio)
    record["speed"] = (
        [speed(wanted.turns, 16.0, 3000), speed(wanted.turns, 1.0, 6000)] if wanted.turns else []
    )
    record["load"] = round(os.getloadavg()[2], 1)
    write("ray", record, page(record))


if __name__ == "__main__":
    main()
