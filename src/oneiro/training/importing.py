"""The stage `Import`: recorded video with actions becomes the experience of a run, once.

    folder of NAME.mp4 + actions --check all actions, then decode one after the other--> run.collected

Video k of the folder (by name) becomes episode k. A stop costs the videos since the last flush.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from oneiro.data.video import VideoFormat, known_actions, read_actions, read_episode
from oneiro.data.video_note import VideoNote
from oneiro.envs.recorded import RecordedConfig
from oneiro.errors import OneiroError
from oneiro.training.schedule import Stage

if TYPE_CHECKING:
    from oneiro.training.run import Run

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")


@dataclass(frozen=True, kw_only=True)
class Import(Stage):
    """Read the videos that `env.videos` names into the replay of the run."""

    shortest: int = 16  # frames; a shorter video is refused
    flush_seconds: float = 20.0  # what a kill may cost

    keeps: ClassVar = "episodes"
    gathers: ClassVar = True

    def __post_init__(self) -> None:
        if self.shortest < 2:
            raise ValueError(f"shortest must be at least 2 frames, one transition, got {self.shortest}")

    def line(self) -> str:
        """See `Stage.line`."""
        return "read recorded video with actions into the replay"

    def total(self) -> int:
        """One tick; the bar shows frames."""
        return 1

    def run(self, run: "Run") -> None:
        """Those already read are not read again."""
        config, store = run.recipe.env, run.collected
        if not isinstance(config, RecordedConfig):
            raise OneiroError(
                f"{type(config).__name__} is no recorded video; the stage Import needs RecordedConfig"
            )
        format = VideoFormat(
            size=(config.height, config.width), fps=config.fps, resample=config.resample, fit=config.fit
        )
        paths = checked(config, self.shortest)
        known = {store.info(int(id))["source"] for id in store.ids}
        flushed = time.monotonic()
        for path in paths:
            if path.name in known:
                continue
            id = int(store.ids[-1]) + 1 if len(store) else 0
            episode = read_episode(path, id, run.spaces.action, format)
            if len(episode) < self.shortest:  # after thinning out
                raise too_short(path, len(episode), self.shortest)
            store.add(episode)
            run.progress.advance(0, env_steps=len(episode))
            if time.monotonic() - flushed > self.flush_seconds:
                store.flush()
                flushed = time.monotonic()
            run.tick()
        store.flush()
        run.record(1, {"import/episodes": float(len(store)), "import/rows": float(store.rows)})
        run.progress.advance(1)


def checked(config: RecordedConfig, shortest: int) -> list[Path]:
    """The videos of a folder in the order of their names, after a look at everything but the pictures.

    OneiroError: no such folder, no videos, a note that says otherwise, actions that are missing, cannot be read, are
    too few or are none of the config's.
    """
    if not config.videos:
        raise OneiroError(
            "which videos? name their folder with --env.videos FOLDER; `oneiro collect --videos FOLDER` makes one"
        )
    folder = Path(config.videos)
    if not folder.is_dir():
        raise OneiroError(f"there is no folder {folder}; name the folder of the videos with --env.videos")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise OneiroError(
            f"{folder} holds no videos ({', '.join(SUFFIXES)}); name another folder with --env.videos"
        )
    if note := VideoNote.read(folder):
        rate = {} if config.resample else {"fps": config.fps}
        note.require(
            folder, **rate, kind=config.kind, actions=config.actions, low=config.low, high=config.high
        )
    twice = {path.stem for path in paths if sum(other.stem == path.stem for other in paths) > 1}
    if twice:
        raise OneiroError(
            f"{folder} holds more than one video called {min(twice)}; their actions would be the same"
        )
    codec = config.spaces().action
    for path in paths:
        action = read_actions(path)["action"]
        if len(action) < shortest:
            raise too_short(path, len(action), shortest)
        known_actions(path, action, codec)
    return paths


def too_short(path: Path, count: int, shortest: int) -> OneiroError:
    """A video that is not worth reading."""
    return OneiroError(
        f"{path} has {count} frames, at least {shortest} are needed; remove it, or set --schedule.videos.shortest"
    )
