"""What packing frames costs and saves: codecs side by side, then the store as it is used.

    python benchmarks/store.py                          # 20,000 frames of real VizDoom TakeCover, about 2 minutes
    python benchmarks/store.py --frames 2000 --json
    python benchmarks/store.py --full 10000             # a store of 3 million frames, 11 GB, under the temporary
                                                        # folder, then a few updates of V and M on it

Times are CPU seconds of one thread, so that they hold on a machine that is busy with other things; the file cache
is warm. With --full they are wall-clock seconds.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import zstandard
from PIL import Image

from oneiro import runtime, tree
from oneiro.data.columns import _accumulate, _difference
from oneiro.data.episodes import Episode
from oneiro.data.samplers import Frames, Streams, Windows, prefetch
from oneiro.data.store import EpisodeStore
from oneiro.recipes import find
from oneiro.training.fit import Fitter
from oneiro.training.guard import Guard
from oneiro.training.run import build_agent

FRAME_BYTES = 3 * 64 * 64


def takecover(frames: int) -> list[np.ndarray]:
    """Episodes [T, 3, 64, 64] of a random policy that holds each action for 1 to 10 tics."""
    import vizdoom

    game = vizdoom.DoomGame()
    game.load_config(os.path.join(vizdoom.scenarios_path, "take_cover.cfg"))
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_window_visible(False)
    game.set_doom_skill(4)
    game.set_episode_timeout(2100)
    game.set_seed(1)
    game.init()
    rng, episodes = np.random.default_rng(0), []
    while sum(map(len, episodes)) < frames:
        game.new_episode()
        rows: list[np.ndarray] = []
        hold = action = 0
        while not game.is_episode_finished():
            picture = Image.fromarray(game.get_state().screen_buffer[:100]).resize(
                (64, 64), Image.Resampling.BILINEAR
            )
            rows.append(np.asarray(picture).transpose(2, 0, 1))
            if hold == 0:
                action, hold = int(rng.integers(3)), int(rng.integers(1, 11))
            hold -= 1
            game.make_action([action == 1, action == 2])
        episodes.append(np.ascontiguousarray(np.stack(rows)))
    game.close()
    return episodes


def _frames_forth(x: np.ndarray) -> np.ndarray:
    y = x.copy()
    y[1:] -= x[:-1]
    return y


def _frames_back(x: np.ndarray) -> np.ndarray:
    y = x.copy()
    for t in range(1, len(y)):
        y[t] += y[t - 1]
    return y


def _planes_forth(x: np.ndarray) -> np.ndarray:
    y = x.copy()
    y[:, 1:] -= x[:, :-1]
    return y


def _planes_back(x: np.ndarray) -> np.ndarray:
    y = x.copy()
    for c in range(1, y.shape[1]):
        y[:, c] += y[:, c - 1]
    return y


FILTERS: dict[str, tuple[Callable, Callable]] = {
    "-": (lambda x: x, lambda x: x),
    "frames": (_frames_forth, _frames_back),
    "planes": (_planes_forth, _planes_back),
    "both": (_difference, _accumulate),
}


def seconds(function: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def codecs(frames: np.ndarray) -> Iterator[dict]:
    """One row per codec, filter and block size, in memory."""
    for block in (1, 4, 8, 16, 32):
        for level in (0, 1, 3):
            for name, (forth, back) in FILTERS.items():
                if level == 0 and name != "-":
                    continue
                pack = zstandard.ZstdCompressor(level=level).compress if level else bytes
                unpack = zstandard.ZstdDecompressor().decompress if level else bytes
                blocks = [frames[start : start + block] for start in range(0, len(frames), block)]
                packed: list[bytes] = []
                write = seconds(lambda: packed.extend(pack(forth(x).data) for x in blocks))  # noqa: B023

                def decode(data: bytes) -> np.ndarray:
                    return back(np.frombuffer(unpack(data), np.uint8).reshape(-1, 3, 64, 64))  # noqa: B023

                assert all(np.array_equal(decode(p), x) for p, x in zip(packed, blocks, strict=True))
                read = seconds(lambda: [decode(data) for data in packed])  # noqa: B023
                yield {
                    "codec": f"zstd {level}" if level else "none",
                    "difference": name,
                    "block": block,
                    "ratio": frames.nbytes / sum(map(len, packed)),
                    "write_mb_s": frames.nbytes / 1e6 / write,
                    "random_frames_s": len(blocks) / read,
                    "whole_frames_s": len(frames) / read,
                }


def store(episodes: list[np.ndarray], compress: bool) -> dict:
    """The store end to end, files included."""
    with tempfile.TemporaryDirectory() as folder:
        writer = EpisodeStore(folder, compress=compress)

        def add() -> None:
            for id, image in enumerate(episodes):
                rows = len(image)
                terminated = np.arange(rows) == rows - 1
                reward, action = np.ones(rows, np.float32), np.ones((rows, 3), np.float32)
                writer.add(
                    Episode(id=id, obs={"image": image}, action=action, reward=reward, terminated=terminated)
                )
            writer.flush()

        write, rows, rng = seconds(add), writer.rows, np.random.default_rng(0)
        disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        cold = EpisodeStore(folder, mode="r", ram=4 << 20)  # a cache that holds almost nothing
        places = [
            (int(id), int(rng.integers(len(episodes[id])))) for id in rng.integers(len(episodes), size=5000)
        ]
        frame = np.empty((1, 3, 64, 64), np.uint8)
        random = seconds(lambda: [cold.copy("image", id, row, frame) for id, row in places])
        whole = seconds(lambda: [None for _ in cold.episodes()])
        warm = EpisodeStore(folder, mode="r", ram=256 << 20)
        frames, windows = Frames(size=100).build(warm, 0), Windows(size=64, length=16).build(cold, 0)
        frames.batch(0)
        batches = rows // 100 - 1
        sampled = seconds(lambda: [frames.batch(k) for k in range(1, 1 + batches)])
        windowed = seconds(lambda: [windows.batch(k) for k in range(20)])
        return {
            "compress": compress,
            "ratio": rows * FRAME_BYTES / disk,
            "gb_per_million_frames": disk / rows / 1e3,
            "write_mb_s": rows * FRAME_BYTES / 1e6 / write,
            "random_frames_s": len(places) / random,
            "sampler_frames_s": 100 * batches / sampled,
            "window_frames_s": 20 * 64 * 16 / windowed,
            "whole_frames_s": rows / whole,
            "whole_episodes_s": len(episodes) / whole,
        }


def fit(reader: EpisodeStore, count: int, folder: Path) -> dict:
    """`count` updates of V and of M of `vmc-takecover` at the published sizes, fed by the store as in a run.

    Wall-clock seconds of an update, reading included, and the memory of the whole process at its highest so far.
    """
    started, found = runtime.start(), {}
    recipe = find("vmc-takecover").build("paper")
    agent = build_agent(recipe, recipe.env.spaces()).to(started.device).train()
    for part in agent.world.parts:
        stage = getattr(recipe.schedule, part)
        sampler, before = stage.batch.build(reader, 0), None
        fitter, start = Fitter(stage.fit, agent, Guard(folder)), time.perf_counter()
        for k, batch in enumerate(prefetch(sampler, 0, count)):
            losses = fitter.apply(tree.to(batch, started.device), before)
            before = None if sampler.starts_epoch(k + 1) else losses.after
        loss = float(losses.metrics[f"{part}/loss"])  # waits for a GPU
        assert np.isfinite(loss)
        found[f"{part}_update_seconds"] = (time.perf_counter() - start) / count
        found[f"peak_ram_gb_after_{part}"] = peak_gb()
    return {"updates": count, "compute_dtype": str(started.compute_dtype).removeprefix("torch.")} | found


def peak_gb() -> float:
    """Memory of this process at its highest so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def full(episodes: list[np.ndarray], count: int, ram: int, updates: int) -> dict:
    """A store of `count` episodes (the played ones over and over), a latent for every row, and sampling from both.

    Wall-clock seconds here, and the memory of the whole process at its highest; then `updates` of V and M beside it.
    """
    with tempfile.TemporaryDirectory() as folder:
        times, start = {}, time.perf_counter()

        def lap(name: str) -> None:
            nonlocal start
            times[f"{name}_seconds"], start = time.perf_counter() - start, time.perf_counter()

        with EpisodeStore(folder, ram=ram) as writer:
            for id in range(count):
                image = episodes[id % len(episodes)]
                flags, rows = np.zeros(len(image), np.bool_), len(image)
                reward, action = np.ones(rows, np.float32), np.ones((rows, 1), np.float32)
                writer.add(
                    Episode(id=id, obs={"image": image}, action=action, reward=reward, terminated=flags)
                )
            lap("add")
            rng = np.random.default_rng(0)
            latent = rng.standard_normal((2200, 64)).astype(np.float16)
            lengths = zip(writer.ids.tolist(), writer.lengths.tolist(), strict=True)
            writer.attach((id, {"mu": latent[:rows], "logvar": latent[:rows]}) for id, rows in lengths)
            lap("attach")
        reader = EpisodeStore(folder, ram=ram)
        lap("open")
        frames = Frames(size=100).build(reader, 0)
        frames.batch(0)
        lap("shuffle")
        for k in range(1, 1001):
            frames.batch(k)
        lap("1000_frame_batches")
        streams = Streams(size=100, length=500, fields=("mu", "logvar", "action")).build(reader, 0)
        for k in range(20):
            streams.batch(k)
        lap("20_stream_batches")
        disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        sizes = {"raw_gb": reader.rows * FRAME_BYTES / 1e9, "disk_gb": disk / 1e9, "peak_ram_gb": peak_gb()}
        fitted = fit(reader, updates, Path(folder)) if updates else {}
        return {"episodes": count, "rows": reader.rows, "ram_gb": ram / 1e9} | sizes | times | fitted


def table(rows: list[dict]) -> str:
    """Rows as Markdown."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    for row in rows:
        cells = (
            (f"{x:.2f}" if x < 100 else f"{x:,.0f}") if isinstance(x, float) else str(x) for x in row.values()
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=20_000, help="frames to play")
    parser.add_argument(
        "--codec-frames", type=int, default=4_000, help="of these, frames for the codec table"
    )
    parser.add_argument("--full", type=int, default=0, help="episodes of a large store to try (10000: 11 GB)")
    parser.add_argument("--ram", type=int, default=1 << 30, help="bytes, for --full")
    parser.add_argument(
        "--updates", type=int, default=10, help="of V and of M at published sizes, for --full"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    episodes = takecover(options.frames)
    if options.full:
        print(
            json.dumps(
                full(episodes, options.full, options.ram, options.updates), indent=None if options.json else 2
            )
        )
        return
    result = {
        "frames": sum(map(len, episodes)),
        "codecs": list(codecs(np.concatenate(episodes)[: options.codec_frames])),
        "store": [store(episodes, compress) for compress in (False, True)],
    }
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{result['frames']} frames\n\n{table(result['codecs'])}\n\n{table(result['store'])}")


if __name__ == "__main__":
    main()
