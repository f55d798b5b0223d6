"""The scenarios of VizDoom with their own rewards (extra `doom`). TakeCover as in World Models: `takecover`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import numpy as np

from oneiro.envs.config import EnvConfig, check_image
from oneiro.envs.doom_engine import RESOLUTIONS, DoomEngine, described
from oneiro.envs.image import shrink
from oneiro.errors import OneiroError, nearest

if TYPE_CHECKING:
    from oneiro.spaces import Spaces

SCENARIOS = (
    *("basic", "deadly_corridor", "deathmatch", "defend_the_center", "defend_the_line", "health_gathering"),
    *("health_gathering_supreme", "my_way_home", "predict_position", "take_cover"),
)
TICS_PER_SECOND = 35
FEW = {  # where pressing one button at a time would not do
    "deathmatch": (
        *("ATTACK", "MOVE_FORWARD", "MOVE_BACKWARD", "MOVE_LEFT", "MOVE_RIGHT", "TURN_LEFT", "TURN_RIGHT"),
        *("MOVE_FORWARD+TURN_LEFT", "MOVE_FORWARD+TURN_RIGHT", "MOVE_FORWARD+ATTACK", "SELECT_NEXT_WEAPON"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class VizDoomConfig(EnvConfig):
    """A scenario as VizDoom brings it: its map, skill, rewards, penalties, buttons and time limit.

    Actions: none, and each button of the scenario alone (deathmatch: a set of 12); `buttons` names others, "+" presses
    several together. A decision lasts `action_repeat` tics (35 a second) whose rewards are added up. Terminated when
    the game ends, truncated at the scenario's limit; score = sum of rewards. Picture: the screen or
    some of its rows, resized.
    """

    scenario: str = "basic"  # basic, defend_the_center, health_gathering, my_way_home, deathmatch, ...
    buttons: tuple[
        str, ...
    ] = ()  # actions beside "none", for example ATTACK MOVE_FORWARD+TURN_LEFT; () = each button
    action_repeat: int = 4  # tics a decision lasts
    max_tics: int = 0  # an episode is truncated after so many tics; 0 = the scenario's own limit
    skill: int = 0  # difficulty, 1 to 5; 0 = the scenario's own
    variables: bool = False  # also show the scenario's game variables (health, ammunition, ...) as "vector"
    resolution: str = "160x120"  # of the rendered screen, width x height
    rows: tuple[int, ...] = ()  # (first, last + 1) row of the screen that is kept; () = all
    size: int = 64  # side of the resized picture, pixels; its height if width is given
    width: int = 0  # of the resized picture, pixels; 0 = size

    needs: ClassVar = ("vizdoom", "doom")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scenario not in SCENARIOS:
            raise ValueError(f"there is no scenario {self.scenario!r}. {nearest(self.scenario, SCENARIOS)}")
        if self.action_repeat < 1 or self.max_tics < 0:
            raise ValueError(
                f"action_repeat must be at least 1 and max_tics not negative: {self.action_repeat}, {self.max_tics}"
            )
        if not 0 <= self.skill <= 5:
            raise ValueError(f"skill must be 1 to 5, or 0 for the scenario's own, got {self.skill}")
        if self.resolution not in RESOLUTIONS:
            raise ValueError(f"resolution {self.resolution!r} is none of {', '.join(RESOLUTIONS)}")
        if self.width < 0:
            raise ValueError(f"width must be a number of pixels, or 0 for that of size, got {self.width}")
        if len(self.rows) not in (0, 2):
            raise ValueError(f"rows are (first, last + 1), or () for all of the screen; got {self.rows}")
        height = int(self.resolution.split("x")[1])
        check_image(self.size, self.kept, height)

    @property
    def kept(self) -> tuple[int, int]:
        """(first, last + 1) row of the screen that is shown."""
        first, stop = self.rows or (0, int(self.resolution.split("x")[1]))
        return first, stop

    @property
    def frames_per_step(self) -> int:
        """See `EnvConfig.frames_per_step`; a frame is a tic."""
        return self.action_repeat

    @property
    def steps_per_second(self) -> float:
        """See `EnvConfig.steps_per_second`."""
        return TICS_PER_SECOND / self.action_repeat

    @property
    def longest(self) -> int:
        """See `EnvConfig.longest`."""
        return -(-self.max_tics // self.frames_per_step)

    def env(self) -> gymnasium.Env:
        """See `EnvConfig.env`."""
        return VizDoom(self)

    def spaces(self) -> "Spaces":
        """Read from the scenario; the engine need not run."""
        from oneiro.spaces import Spaces

        self.require()
        return Spaces.of(self.env())

    def describe(self) -> str:
        """See `EnvConfig.describe`."""
        facts = [f"VizDoom {self.scenario}", f"a decision every {self.action_repeat} tics"]
        facts += [f"skill {self.skill}"] * (self.skill > 0)
        facts += [f"buttons {' '.join(self.buttons)}"] * bool(self.buttons)
        facts += [f"at most {self.max_tics:,} tics" if self.max_tics else "its own time limit"]
        cut = f" rows {self.rows[0]}-{self.rows[1] - 1}" if self.rows else ""
        facts += [
            f"{self.resolution}{cut} to {self.width or self.size}x{self.size}",
            "score = sum of the scenario's rewards",
        ]
        return ", ".join(facts)


class VizDoom(gymnasium.Env):
    """One engine, started at the first reset; `close` ends it."""

    def __init__(self, config: VizDoomConfig) -> None:
        self.config = config
        self.engine = DoomEngine(config.scenario, config.resolution, self._prepare)
        game = described(config.scenario)
        self.pressed = _pressed(config, [button.name for button in game.get_available_buttons()])
        self.action_space = gymnasium.spaces.Discrete(len(self.pressed))
        spaces: dict[str, gymnasium.Space] = {
            "image": gymnasium.spaces.Box(0, 255, (3, config.size, config.width or config.size), np.uint8)
        }
        self._variables = game.get_available_game_variables() if config.variables else []
        if config.variables:
            if not self._variables:
                raise OneiroError(f"{config.scenario} has no game variables; leave variables off")
            spaces["vector"] = gymnasium.spaces.Box(-np.inf, np.inf, (len(self._variables),), np.float32)
        self.observation_space = gymnasium.spaces.Dict(spaces)
        self._tics = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A new episode; without a seed, from a random one."""
        super().reset(seed=seed)
        self.engine.begin(int(self.np_random.integers(2**31)) if seed is None else seed)
        self._tics = 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Hold the buttons of the action for `action_repeat` tics, fewer at the end."""
        limit = self.config.max_tics or self.engine.limit
        tics = self.config.action_repeat
        if limit:
            tics = min(tics, limit - self._tics)
        reward, is_over = self.engine.act(self.pressed[int(action)], tics)
        self._tics += tics
        return self._observe(), reward, is_over, not is_over and 0 < limit <= self._tics, {}

    def close(self) -> None:
        """End the engine."""
        self.engine.close()

    def _prepare(self, game: Any) -> None:
        if self.config.skill:
            game.set_doom_skill(self.config.skill)

    def _observe(self) -> dict[str, np.ndarray]:
        shown = {
            "image": shrink(self.engine.screen(), self.config.size, self.config.kept, width=self.config.width)
        }
        if self.config.variables:
            values = [self.engine.game.get_game_variable(variable) for variable in self._variables]
            shown["vector"] = np.array(values, np.float32)
        return shown


def _pressed(config: VizDoomConfig, known: list[str]) -> list[list[bool]]:
    """For each action, which buttons are pressed; action 0 presses none."""
    single = tuple(name for name in known if not name.endswith("_DELTA"))  # those take a number
    chosen = config.buttons or FEW.get(config.scenario, single)
    sets = [[]] + [text.split("+") for text in chosen]
    for name in {name for names in sets for name in names} - set(single):
        raise OneiroError(f"{config.scenario} has no button {name!r}. {nearest(name, single)}")
    return [[name in names for name in known] for names in sets]
