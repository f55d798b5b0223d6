"""What decides the meaning of a score: the task, and the settings of its environment.

Two scores may be compared only if these are equal. Sticky actions, what a lost life does, the action set, frame skip,
limits and reward belong to it; how the environment is shown (picture size, colour, what counts as terminal) and
how it is computed (slots, workers) are part of a system, and do not.
"""

import dataclasses
from typing import Any

from oneiro.training.recipe import to_json

COMPUTING = {"num", "workers", "processes", "timeout", "max_crashes", "gl"}
SHOWN = {
    *("pool", "pool_first", "colour", "size", "stack", "resize", "after_life", "limit_is_terminal"),
    *("pixels", "rows", "camera", "resolution", "quality", "shows"),
}
NAMES = {"game", "id", "task", "domain", "preset"}
"""Fields that say which task it is, which `task_of` answers."""


def task_of(env: Any) -> str:
    """Of an environment's config: "suite/task" if scores were published, else the beginning of its description."""
    return getattr(env, "benchmark", "") or env.describe().split(",")[0].split(": ")[0]


def settings_of(env: Any) -> dict[str, Any]:
    """What decides the meaning of a score, by name."""
    protocol = getattr(env, "protocol", None)  # of a preset, all fields filled in
    record = protocol if dataclasses.is_dataclass(protocol) else env
    if not dataclasses.is_dataclass(record):
        return {"env": env.describe()}
    found = to_json(record)
    return {name: value for name, value in found.items() if name not in COMPUTING | SHOWN | NAMES}


def frames_per_step(env: Any) -> int:
    """Frames of the game that one decision lasts."""
    return int(getattr(env, "frames_per_step", 1))


def steps_of(schedule: Any) -> int:
    """Decisions of training that a schedule asks for, 0 if no stage counts them."""
    stages = (getattr(schedule, f.name) for f in dataclasses.fields(schedule))
    return sum(int(getattr(stage, "steps", 0)) for stage in stages)
