"""Which keys do what in a game: from the names of its actions where they are known, else number keys.

Keys are named as browsers name them (`KeyboardEvent.code`), for example "ArrowLeft", "Space", "KeyE", "Digit1".
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from oneiro.data import csgo
from oneiro.envs.atari import AtariConfig
from oneiro.envs.car_racing import CarRacingConfig
from oneiro.envs.config import EnvConfig
from oneiro.envs.crafter import CrafterConfig
from oneiro.envs.minigrid import MiniGridConfig
from oneiro.envs.procgen import ProcgenConfig
from oneiro.envs.recorded import RecordedConfig
from oneiro.envs.takecover import TakeCoverConfig
from oneiro.envs.vizdoom import VizDoomConfig
from oneiro.errors import OneiroError
from oneiro.spaces import ActionCodec

LEFT, RIGHT, UP, DOWN, SPACE = "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Space"
SPARE = (
    *(f"Digit{i}" for i in (1, 2, 3, 4, 5, 6, 7, 8, 9, 0)),
    *(f"Key{c}" for c in "QWEASDZXCTYUIOFHJKLVBNM"),
)
"""For actions without a meaning; the page itself uses P, R, G, comma and full stop."""


@dataclass(frozen=True)
class Binding:
    """While all of `keys` are held, the action is `action`; None leaves that number to other keys."""

    keys: tuple[str, ...]
    label: str
    action: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """Of one environment. Where actions are one choice, the binding with the most keys held decides; where they have
    several numbers, each binding sets its own, and those of a Box that meet are added up.
    """

    bindings: tuple[Binding, ...]
    idle: tuple[float, ...] | None
    """While no key is held; None: the game waits for a key."""
    is_box: bool = False
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    excludes: tuple[tuple[str, str], ...] = ()
    """Keys that contradict each other: of those that are held, the one pressed later does nothing."""

    def to_json(self) -> dict[str, Any]:
        """For the page."""
        return asdict(self)


def key_map(config: EnvConfig, codec: ActionCodec) -> KeyMap:
    """The keys of an environment, of its own or generic ones."""
    if isinstance(config, RecordedConfig) and config.kind == "switches":
        return _switches(config.actions)
    if not codec.is_discrete:
        return _box(config, codec)
    if len(codec.groups) > 1:
        return _groups(codec)
    names = meanings(config, codec.dim)
    if len(names) != codec.dim:
        return KeyMap(
            bindings=_numbered([f"action {i}" for i in range(codec.dim)], set(), range(codec.dim)), idle=None
        )
    return _named(names)


def meanings(config: EnvConfig, count: int) -> tuple[str, ...]:
    """Names of discrete actions as a person would say them; () if nobody knows."""
    if isinstance(config, RecordedConfig):
        return config.actions
    if isinstance(config, AtariConfig):
        return ATARI if count == len(ATARI) else _atari_minimal(config)
    if isinstance(config, MiniGridConfig):
        return MINIGRID
    if isinstance(config, CrafterConfig):
        return CRAFTER
    if isinstance(config, ProcgenConfig):
        return PROCGEN
    if isinstance(config, VizDoomConfig):
        return _doom(config)
    return ()


def _named(names: Sequence[str]) -> KeyMap:
    """Arrows for directions, space for the main action, other words get letters of their own."""
    bindings: list[Binding] = []
    rest: list[int] = []
    idle = None
    spoken = [name.lower().replace("_", " ") for name in names]
    words = (*(STEP_ASIDE if any("turn left" in plain for plain in spoken) else STEP), *WORDS)
    known: set[frozenset[str]] = set()
    for i, plain in enumerate(spoken):
        keys = _keys(plain, words)
        if plain in ("noop", "none", "no-op"):
            idle = (float(i),)
        elif keys and frozenset(keys) not in known:
            bindings.append(Binding(keys, plain, (float(i),)))
            known.add(frozenset(keys))
        else:
            rest.append(i)
    taken = {key for binding in bindings for key in binding.keys}
    return KeyMap(bindings=(*bindings, *_numbered([names[i] for i in rest], taken, rest)), idle=idle)


def _numbered(labels: Sequence[str], taken: set[str], actions: Sequence[int]) -> tuple[Binding, ...]:
    spare = [key for key in SPARE if key not in taken]
    return tuple(
        Binding((key,), label.lower().replace("_", " "), (float(i),))
        for key, label, i in zip(spare, labels, actions, strict=False)
    )


def _keys(name: str, words: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Keys for what a name says: "turn left", "up fire" (as in ale-py: "upfire"), "move forward+attack"."""
    if name in LETTERS:
        return (LETTERS[name],)
    rest, keys = name.replace("+", " "), []
    for word, key in words:
        if word in rest:
            rest = rest.replace(word, " ")
            keys.append(key)
    return tuple(dict.fromkeys(keys)) if not rest.strip() else ()


STEP = (("move left", LEFT), ("move right", RIGHT))
STEP_ASIDE = (("move left", "KeyA"), ("move right", "KeyD"))
"""Where arrows turn."""
WORDS = (
    ("turn left", LEFT), ("turn right", RIGHT),
    ("move forward", UP), ("move backward", DOWN), ("forward", UP), ("backward", DOWN),
    ("left", LEFT), ("right", RIGHT), ("up", UP), ("down", DOWN),
    ("fire", SPACE), ("attack", SPACE), ("jump", SPACE),
)  # fmt: skip
LETTERS = {
    "move up": UP, "move down": DOWN, "do": SPACE, "toggle": SPACE, "pick up": "KeyE", "drop": "KeyD", "use": "KeyU",
}  # fmt: skip
MINIGRID = ("left", "right", "forward", "pick up", "drop", "toggle", "done")
CRAFTER = (
    *("noop", "move_left", "move_right", "move_up", "move_down", "do", "sleep", "place_stone", "place_table"),
    *("place_furnace", "place_plant", "make_wood_pickaxe", "make_stone_pickaxe", "make_iron_pickaxe"),
    *("make_wood_sword", "make_stone_sword", "make_iron_sword"),
)
PROCGEN = (
    *("left down", "left", "left up", "down", "noop", "up", "right down", "right", "right up"),
    *("D", "A", "W", "S", "Q", "E"),
)
ATARI = (
    *("NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPLEFT", "DOWNRIGHT", "DOWNLEFT", "UPFIRE"),
    *("RIGHTFIRE", "LEFTFIRE", "DOWNFIRE", "UPRIGHTFIRE", "UPLEFTFIRE", "DOWNRIGHTFIRE", "DOWNLEFTFIRE"),
)
"""The 18 actions of the Arcade Learning Environment, by their code."""


def _atari_minimal(config: AtariConfig) -> tuple[str, ...]:
    """The actions a game knows, () where it cannot be opened."""
    try:
        config.require()
        env: Any = config.env()
    except OneiroError:
        return ()
    try:
        return tuple(ATARI[code] for code in env.codes)
    finally:
        env.close()


def _doom(config: VizDoomConfig) -> tuple[str, ...]:
    """ "none" and the buttons of each action, () where the scenario cannot be read."""
    if config.buttons:
        return ("none", *(text.replace("_", " ") for text in config.buttons))
    try:
        config.require()
        from oneiro.envs.doom_engine import described
        from oneiro.envs.vizdoom import FEW

        known = [button.name for button in described(config.scenario).get_available_buttons()]
    except OneiroError:
        return ()
    single = [name for name in known if not name.endswith("_DELTA")]
    return ("none", *(text.replace("_", " ") for text in FEW.get(config.scenario, single)))


def _box(config: EnvConfig, codec: ActionCodec) -> KeyMap:
    """Two keys a number, to its bounds; gas and brake of a car have one each."""
    idle = [min(max(0.0, low), high) for low, high in zip(codec.low, codec.high, strict=True)]
    bindings = []

    def bind(key: str, label: str, at: int, value: float) -> None:
        action: list[float | None] = [None] * codec.dim
        action[at] = value
        bindings.append(Binding((key,), label, tuple(action)))

    if isinstance(config, CarRacingConfig):
        bind(LEFT, "left", 0, -1.0)
        bind(RIGHT, "right", 0, 1.0)
        bind(UP, "gas", 1, 1.0)
        bind(DOWN, "brake", 2, 0.8)
    else:
        names = ("left", "right") if isinstance(config, TakeCoverConfig) or codec.dim == 1 else ("-", "+")
        for i, (less, more) in enumerate(PAIRS[: codec.dim]):
            number = f" {i + 1}" if codec.dim > 1 else ""
            bind(less, names[0] + number, i, codec.low[i])
            bind(more, names[1] + number, i, codec.high[i])
    return KeyMap(bindings=tuple(bindings), idle=tuple(idle), is_box=True, low=codec.low, high=codec.high)


PAIRS = (
    (LEFT, RIGHT), (DOWN, UP), ("KeyA", "KeyD"), ("KeyS", "KeyW"), ("KeyF", "KeyH"), ("KeyJ", "KeyL"),
    ("KeyK", "KeyI"), ("KeyQ", "KeyE"), ("KeyZ", "KeyX"), ("KeyC", "KeyV"), ("KeyB", "KeyN"),
    ("Digit1", "Digit2"), ("Digit3", "Digit4"), ("Digit5", "Digit6"), ("Digit7", "Digit8"), ("Digit9", "Digit0"),
)  # fmt: skip
"""Keys for the numbers of a Box; the page leaves what lies beyond at rest."""


def _switches(names: Sequence[str]) -> KeyMap:
    """A key for each thing that can be on or off; a mouse that moved comes in bins, of which one is always on.

    Counter-Strike's data hold no opposite keys at once, and never two weapons.
    """
    still = {name.rpartition(" ")[0]: i for i, name in enumerate(names) if name in ("mouse x 0", "mouse y 0")}
    idle = [float(i in still.values()) for i in range(len(names))]
    named = [(i, *CSGO[name]) if name in CSGO else (i, "", name) for i, name in enumerate(names)]
    taken = {key for _, key, _ in named}
    spare = iter(key for key in SPARE if key not in taken)
    bindings = []
    for i, key, label in named:
        axis = names[i].rpartition(" ")[0]
        if axis in still and not key:
            continue  # other movements of the mouse
        if key := key or next(spare, ""):
            action: list[float | None] = [None] * len(names)
            action[i] = 1.0
            if axis in still:
                action[still[axis]] = 0.0
            bindings.append(Binding((key,), label, tuple(action)))
    pairs = csgo.OPPOSITES if tuple(names) == csgo.NAMES else ARROW_PAIRS
    excludes = tuple((code(one), code(other)) for one, other in map(str.split, pairs))
    bounds = {"low": (0.0,) * len(names), "high": (1.0,) * len(names)}
    return KeyMap(bindings=tuple(bindings), idle=tuple(idle), is_box=True, excludes=excludes, **bounds)


ARROW_PAIRS = tuple(pair for pair in csgo.OPPOSITES if set(pair.split()) <= set(csgo.ARROWS))
CSGO = {
    **{letter: (f"Key{letter.upper()}", letter) for letter in "wasd"},
    **{number: (f"Digit{number}", number) for number in "123"},
    "r": ("KeyE", "reload"), "space": (SPACE, "jump"),
    "left ctrl": ("KeyC", "crouch"), "left shift": ("ShiftLeft", "walk"),
    "left button": ("KeyF", "fire"), "right button": ("KeyV", "aim"),
    "mouse x -60": (LEFT, "look left"), "mouse x 60": (RIGHT, "look right"),
    "mouse y -50": (UP, "look up"), "mouse y 50": (DOWN, "look down"),
}  # fmt: skip
"""Keys of Counter-Strike's switches, and what they are for; arrows move the mouse, as in the released code.

Crouch is not the control key: in a browser control and W, pressed together, close the tab.
"""


def code(name: str) -> str:
    """The browser's name of a key that `oneiro.data.csgo` names: w, 1, space, left, ..."""
    return CSGO[name][0] if name in CSGO else f"Arrow{name.capitalize()}"


def _groups(codec: ActionCodec) -> KeyMap:
    """MultiDiscrete: a key for every choice but the first of each group, which is rest."""
    spare, bindings = iter(SPARE), []
    for group, size in enumerate(codec.groups):
        for choice in range(1, size):
            if (key := next(spare, None)) is not None:
                action: list[float | None] = [None] * len(codec.groups)
                action[group] = float(choice)
                bindings.append(Binding((key,), f"{group + 1}: {choice}", tuple(action)))
    return KeyMap(bindings=tuple(bindings), idle=(0.0,) * len(codec.groups))
