"""DeepMind Control Suite: bodies moved by torques, seen as numbers or through a camera (extra `dmc`).

Drawing without a display needs an OpenGL library of the system, EGL (of Mesa, or the driver of a GPU) or OSMesa;
`libraries` names the packages. Physics needs none.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np

from oneiro.envs.config import EnvConfig
from oneiro.envs.libraries import is_there, remedy
from oneiro.errors import MissingExtra, OneiroError, nearest

LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
REMEDY = f'{remedy(["EGL", "OSMesa"])}; without pictures, shows="state", none is needed'
DREAMER_CAMERA = {"quadruped": 2}  # all others 0


@dataclass(frozen=True, kw_only=True)
class DMCConfig(EnvConfig):
    """A task of the suite, as in Dreamer.

    Protocol: 1,000 control steps, never terminated but in a few tasks; actions scaled to [-1, 1]; reward 0 to 1 a
    control step, summed over `action_repeat`; score = sum of rewards. DreamerV3 decides at every control step (its
    paper and the earlier Dreamers at every second). State: all observations of the task in one vector. Picture:
    camera 0 (quadruped: 2), standard quality.

    `quality="fast"` draws without shadows and without multisampling, several times as fast. These are NOT the
    standard pixels: scores do not compare with published ones.
    """

    task: str = "walker_walk"  # domain_task of the suite
    shows: Literal["state", "image", "both"] = "state"  # numbers, a picture, or both
    size: int = 64  # side of the picture, pixels
    camera: int = -1  # number of the camera; -1 = Dreamer's choice
    quality: Literal["standard", "fast"] = (
        "standard"  # fast: no shadows, no multisampling; not the standard pixels
    )
    action_repeat: int = 1  # control steps a decision lasts
    gl: Literal["auto", "egl", "osmesa"] = "auto"  # OpenGL library; MUJOCO_GL, where set, goes before it

    needs: ClassVar = ("dm_control", "dmc")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.size < 1 or self.action_repeat < 1:
            raise ValueError(
                f"size and action_repeat must be at least 1, got {self.size} and {self.action_repeat}"
            )
        if self.camera < -1:
            raise ValueError(f"camera must be a number from 0, or -1 for Dreamer's choice, got {self.camera}")

    @property
    def frames_per_step(self) -> int:
        """See `EnvConfig.frames_per_step`; a frame is a control step."""
        return self.action_repeat

    @property
    def benchmark(self) -> str:
        """See `EnvConfig.benchmark`; with other pixels than the standard ones there are no published scores."""
        if self.shows == "state":
            return f"dmc-proprio/{self.task}"
        return f"dmc-vision/{self.task}" if self.shows == "image" and self.quality == "standard" else ""

    @property
    def longest(self) -> int:
        """See `EnvConfig.longest`."""
        return -(-1000 // self.action_repeat)

    def env(self) -> gymnasium.Env:
        """See `EnvConfig.env`."""
        return DMC(self)

    def describe(self) -> str:
        """See `EnvConfig.describe`."""
        steps = "control step" if self.action_repeat == 1 else f"{self.action_repeat} control steps"
        drawn = f"{self.size}x{self.size} RGB" + " WITHOUT shadows and multisampling" * (
            self.quality == "fast"
        )
        shown = {"state": "state", "image": drawn, "both": f"state and {drawn}"}[self.shows]
        return f"DeepMind Control {self.task}, {shown}, a decision every {steps}, score = sum of rewards"


CHOICES = {
    "shows": ("state", "image", "both"),
    "quality": ("standard", "fast"),
    "gl": ("auto", "egl", "osmesa"),
}


class DMC(gymnasium.Env):
    """One task."""

    def __init__(self, config: DMCConfig) -> None:
        self.config = config
        suite = _suite(config)
        domain, task = find_task(config.task)
        with _silence():
            self.engine = suite.load(domain, task, task_kwargs={"random": 0})
        self._camera = DREAMER_CAMERA.get(domain, 0) if config.camera < 0 else config.camera
        if self._camera >= (cameras := self.engine.physics.model.ncam):
            raise OneiroError(f"{config.task} has {cameras} cameras, there is no number {self._camera}")
        if config.quality == "fast":  # before the first picture is drawn
            quality = self.engine.physics.model.vis.quality
            quality.shadowsize = quality.offsamples = 0
        action = self.engine.action_spec()
        self._low, self._span = np.array(action.minimum), np.array(action.maximum) - action.minimum
        if not np.isfinite(self._span).all():
            raise OneiroError(f"the actions of {config.task} are unbounded")
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, action.shape, np.float32)
        spaces: dict[str, gymnasium.Space] = {}
        if config.shows != "image":
            count = sum(int(np.prod(spec.shape)) for spec in self.engine.observation_spec().values())
            spaces["vector"] = gymnasium.spaces.Box(-np.inf, np.inf, (count,), np.float32)
        if config.shows != "state":
            spaces["image"] = gymnasium.spaces.Box(0, 255, (3, config.size, config.size), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(spaces)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A new episode; the same for the same seed."""
        super().reset(seed=seed)
        self.engine.task.random.seed(int(self.np_random.integers(2**31)) if seed is None else seed % 2**32)
        return self._observe(self.engine.reset()), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """`action_repeat` control steps, fewer at the end."""
        told = self._low + self._span * (np.clip(np.asarray(action, np.float64), -1, 1) + 1) / 2
        reward, moment = 0.0, None
        for _ in range(self.config.action_repeat):
            moment = self.engine.step(told)
            reward += moment.reward or 0.0
            if moment.last():
                break
        assert moment is not None
        terminated = bool(moment.last() and moment.discount == 0)
        return self._observe(moment), reward, terminated, bool(moment.last()) and not terminated, {}

    def close(self) -> None:
        """Let the engine and what it draws with go."""
        self.engine.close()

    def _observe(self, moment: Any) -> dict[str, np.ndarray]:
        shown = {}
        if self.config.shows != "image":
            parts = [np.ravel(part) for part in moment.observation.values()]
            shown["vector"] = np.concatenate(parts).astype(np.float32)
        if self.config.shows != "state":
            shown["image"] = np.ascontiguousarray(self._draw().transpose(2, 0, 1))
        return shown

    def _draw(self) -> np.ndarray:
        size = self.config.size
        try:
            return self.engine.physics.render(size, size, camera_id=self._camera)
        except Exception as error:  # each OpenGL library has errors of its own
            raise OneiroError(f"{self.config.task} cannot be drawn ({error}). Remedy: {REMEDY}") from error


def find_task(name: str) -> tuple[str, str]:
    """Domain and task of "domain_task"; OneiroError with the nearest one."""
    from dm_control import suite

    known = {f"{domain}_{task}": (domain, task) for domain, task in suite.ALL_TASKS}
    known |= {"cup_catch": ("ball_in_cup", "catch")}  # as Dreamer calls it
    plain = name.lower().replace("-", "_").removeprefix("dmc_")
    if plain not in known:
        raise OneiroError(f"there is no task {name!r} in the DeepMind Control Suite. {nearest(plain, known)}")
    return known[plain]


def _suite(config: DMCConfig) -> Any:
    """The suite, imported with an OpenGL library that is there; without one only if nothing is to be drawn."""
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa draws in this thread
    if "MUJOCO_GL" not in os.environ:
        wanted = LIBRARIES if config.gl == "auto" else (config.gl,)
        found = next((name for name in wanted if is_there(LIBRARIES[name])), None)
        if found is None and config.shows != "state":
            raise OneiroError(f"to draw {config.task}, {' or '.join(wanted)} is missing. Remedy: {REMEDY}")
        os.environ["MUJOCO_GL"] = found or "disabled"
    try:
        with _silence():
            from dm_control import suite
    except ImportError as error:
        if getattr(error, "name", None) in ("dm_control", "mujoco"):
            raise MissingExtra("dm_control", "dmc") from None
        raise OneiroError(f"dm_control cannot be imported ({error}). Remedy: {REMEDY}") from error
    except AttributeError as error:  # PyOpenGL, where a library is there but not what it shall load
        raise OneiroError(f"dm_control cannot be imported ({error}). Remedy: {REMEDY}") from error
    return suite


@contextmanager
def _silence() -> Iterator[None]:
    """What dm_control and MuJoCo say about each other is not for the user."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        absl.setLevel(level)
