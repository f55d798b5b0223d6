"""Twenty people play in the dream of one run for a minute, while others misbehave. Writes results/play_load.{json,md}.

python benchmarks/play_load.py runs/vmc-takecover-demo-0 --clients 20 --seconds 60 --rate 5

The server is `oneiro play` in a process of its own, on loopback. Each client steps at a fixed rate, rewinds now and
then and begins anew; one in four has the agent on. Beside them come sockets that say nonsense or leave in mid-step.
"""

import argparse
import asyncio
import json
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from websockets.asyncio.client import connect

RESULTS = Path(__file__).parent.parent / "results"


async def hear(socket: Any) -> dict[str, Any]:
    """One message; of a binary one the head."""
    data = await asyncio.wait_for(socket.recv(), 60)
    if isinstance(data, str):
        return json.loads(data)
    return json.loads(data[4 : 4 + int.from_bytes(data[:4], "big")])


async def ask(socket: Any, message: dict[str, Any]) -> dict[str, Any]:
    """What ends the answer."""
    await socket.send(json.dumps(message))
    answer = await hear(socket)
    return await hear(socket) if answer["type"] == "settings" else answer


async def client(number: int, url: str, end: float, rate: float, found: dict[str, list]) -> None:
    """Plays until `end`; notes the milliseconds of every step."""
    random = np.random.default_rng(number)
    async with connect(url, max_size=None, open_timeout=60) as socket:
        await socket.send('{"type": "hello"}')
        welcome, _ = await hear(socket), await hear(socket)
        changes = {"past_ends": True, "agent": number % 4 == 0, "horizon": 10_000}
        await ask(socket, {"type": "set", **changes})
        idle = welcome["keys"]["idle"] or welcome["keys"]["bindings"][0]["action"]
        choices = [
            [x if y is None else y for x, y in zip(idle, b["action"], strict=True)]
            for b in welcome["keys"]["bindings"]
        ]
        due = time.monotonic() + random.random() / rate
        while time.monotonic() < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + 1 / rate, time.monotonic())
            step: dict[str, Any] = {"type": "step"}
            if not changes["agent"]:
                step["action"] = choices[random.integers(len(choices))]
            began = time.perf_counter()
            frame = await ask(socket, step)
            found["at"].append(time.monotonic() - found["began"][0])
            found["ms"].append(1000 * (time.perf_counter() - began))
            found["world"].append(frame["lanes"][0]["ms"] if frame["type"] == "frame" else float("nan"))
            found["errors"] += [frame["text"]] if frame["type"] == "error" else []
            if random.random() < 0.02 and frame["type"] == "frame":
                await ask(
                    socket,
                    {"type": "rewind", "frame": int(random.integers(frame["first"], frame["last"] + 1))},
                )
            elif random.random() < 0.01:
                await ask(socket, {"type": "start"})


async def nuisance(url: str, end: float, found: dict[str, list]) -> None:
    """Sockets that say nonsense or vanish, one after the other."""
    nonsense = [
        "{",
        '{"type": "read", "path": "/etc/passwd"}',
        "x" * 100_000,
        '{"type": "step", "action": [NaN]}',
    ]
    turn = 0
    while time.monotonic() < end:
        turn += 1
        try:
            async with connect(url, max_size=None, open_timeout=60) as socket:
                if turn % 3 == 0:
                    await socket.send('{"type": "hello"}')
                    await socket.send('{"type": "step", "action": [0]}')
                    socket.transport.abort()
                else:
                    await socket.send(nonsense[turn % len(nonsense)])
                    await asyncio.wait_for(socket.wait_closed(), 60)
                    found["closed"].append(socket.close_code)
        except OSError as error:
            found["refused"].append(str(error))
        await asyncio.sleep(0.5)


async def watch(process: psutil.Process, began: float, end: float, found: dict[str, list]) -> None:
    """Resident memory every second, in MB."""
    while time.monotonic() < end:
        found["memory"].append((time.monotonic() - began, process.memory_info().rss / 1e6))
        await asyncio.sleep(1)


async def load(url: str, process: psutil.Process, args: argparse.Namespace) -> dict[str, list]:
    """All of them at once."""
    found: dict[str, list] = {
        name: [] for name in ("at", "ms", "world", "errors", "memory", "closed", "refused")
    }
    began = time.monotonic()
    found["began"] = [began]
    end = began + args.warmup + args.seconds
    players = [client(i, url, end, args.rate, found) for i in range(args.clients)]
    await asyncio.gather(*players, nuisance(url, end, found), watch(process, began, end, found))
    return found


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--warmup", type=float, default=0.0, help="seconds before, in which histories fill up"
    )
    parser.add_argument("--rate", type=float, default=5.0, help="steps a second of each client")
    parser.add_argument(
        "--memory", type=int, default=1, help="MiB of history of each: small, so that it fills up early"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "play_load")
    args = parser.parse_args()
    command = [sys.executable, "-m", "oneiro.cli", "play", args.run, "--port", "0", "--games", "0"]
    command += ["--sessions", str(args.clients + 1), "--memory", str(args.memory)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        address = next(re.search(r"http://\S+/", line) for line in server.stdout)
        assert address
        url = address[0].replace("http", "ws") + "play"
        process = psutil.Process(server.pid)
        found = asyncio.run(load(url, process, args))
        is_alive = server.poll() is None
        seconds = sum(process.cpu_times()[:2])
    finally:
        server.terminate()
        _, log = server.communicate(timeout=30)
    result = summary(args, found, is_alive, seconds, log)
    args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(page(result))
    print(page(result))


def summary(
    args: argparse.Namespace, found: dict[str, list], is_alive: bool, cpu: float, log: str
) -> dict[str, Any]:
    """Everything that is written down."""
    is_counted = np.array(found["at"]) >= args.warmup
    ms, world = np.array(found["ms"])[is_counted], np.array(found["world"])[is_counted]
    seconds, memory = np.array(found["memory"]).T
    late = seconds >= args.warmup
    return {
        "command": f"python benchmarks/play_load.py RUN --clients {args.clients} --seconds {args.seconds:g} "
        f"--warmup {args.warmup:g} --rate {args.rate:g} --memory {args.memory}",
        "run": Path(args.run).resolve().name,
        "machine": {
            "cores": psutil.cpu_count(),
            "load": psutil.getloadavg()[0],
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "clients": args.clients,
        "seconds": args.seconds,
        "asked_per_second": args.clients * args.rate,
        "steps": len(ms),
        "steps_per_second": len(ms) / args.seconds,
        "latency_ms": {f"p{p}": float(np.percentile(ms, p)) for p in (50, 95, 99)} | {"max": float(ms.max())},
        "world_ms": {f"p{p}": float(np.nanpercentile(world, p)) for p in (50, 95)},
        "memory_mb": {
            "first": float(memory[0]),
            "warm": float(memory[late][0]),
            "end": float(memory[-1]),
            "slope_per_minute": float(60 * np.polyfit(seconds[late], memory[late], 1)[0]),
        },
        "memory_curve_mb": [round(float(x), 1) for x in memory],
        "nuisances_closed": len(found["closed"]),
        "close_codes": sorted(set(found["closed"])),
        "refused": found["refused"],
        "errors": sorted(set(found["errors"])),
        "server_alive_at_the_end": is_alive,
        "server_cpu_seconds": cpu,
        "server_log_lines": [line for line in log.splitlines() if "opening" not in line],
    }


def page(r: dict[str, Any]) -> str:
    """The result as Markdown."""
    ms, world, memory = r["latency_ms"], r["world_ms"], r["memory_mb"]
    machine, codes = r["machine"], ", ".join(map(str, r["close_codes"]))
    made = f"{r['steps_per_second']:.1f} a second ({r['steps']:,} in {r['seconds']:.0f} s)"
    rows = {
        "steps asked for, made": f"{r['asked_per_second']:.0f}, {made}",
        "question to frame: median, 95 %, 99 %, longest": " / ".join(f"{x:.0f}" for x in ms.values()) + " ms",
        "of which the world: median, 95 %": " / ".join(f"{x:.1f}" for x in world.values()) + " ms",
        "memory of the server: first, after the warm-up, at the end": f"{memory['first']:.0f} / {memory['warm']:.0f} / "
        f"{memory['end']:.0f} MB",
        "its slope after the warm-up": f"{memory['slope_per_minute']:+.1f} MB a minute",
        "processor time of the server": f"{r['server_cpu_seconds']:.0f} s",
        "sockets that said nonsense, each closed with a reason": f"{r['nuisances_closed']} (codes {codes})",
        "server alive at the end": "yes" if r["server_alive_at_the_end"] else "no",
        "lines in its log": len(r["server_log_lines"]),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""# {r["clients"]} people in one dream

`{r["command"]}` with the run {r["run"]}; {machine["cores"]} cores shared with the clients and with
other work (load {machine["load"]:.1f}), torch {machine["torch"]}. One client in four has the agent on; some rewind
and begin anew.

| | |
|---|---|
{table}
"""


if __name__ == "__main__":
    main()
