"""Keys of every environment: from the names of its actions, otherwise generic; none is used twice or by the page."""

import itertools

import pytest

from oneiro.envs.atari import AtariConfig
from oneiro.envs.car_racing import CarRacingConfig
from oneiro.envs.config import EnvConfig
from oneiro.envs.crafter import CrafterConfig
from oneiro.envs.gym import GymConfig
from oneiro.envs.minigrid import MiniGridConfig
from oneiro.envs.procgen import ProcgenConfig
from oneiro.envs.recorded import RecordedConfig
from oneiro.envs.takecover import TakeCoverConfig
from oneiro.envs.toy import ToyConfig
from oneiro.envs.vizdoom import FEW, VizDoomConfig
from oneiro.play.keys import ATARI, KeyMap, key_map
from oneiro.spaces import ActionCodec

PAGE = {"KeyP", "KeyR", "KeyG", "Comma", "Period"}


def discrete(config: EnvConfig, count: int) -> KeyMap:
    return key_map(config, ActionCodec(count))


def by_label(found: KeyMap) -> dict[str, tuple[tuple[str, ...], tuple[float | None, ...]]]:
    return {binding.label: (binding.keys, binding.action) for binding in found.bindings}


def test_all_actions_of_atari() -> None:
    found = discrete(AtariConfig(), len(ATARI))
    assert found.idle == (0.0,)
    labels = by_label(found)
    assert labels["fire"] == (("Space",), (1.0,))
    assert set(labels["upleftfire"][0]) == {"ArrowUp", "ArrowLeft", "Space"}
    assert labels["upleftfire"][1] == (15.0,)
    assert len(found.bindings) == 17


def test_the_actions_a_game_knows() -> None:
    pytest.importorskip("ale_py")
    labels = by_label(discrete(AtariConfig(game="breakout", preset="diamond"), 4))
    expected = {"fire": ("Space",), "left": ("ArrowLeft",), "right": ("ArrowRight",)}
    assert {label: keys for label, (keys, _) in labels.items()} == expected


def test_minigrid_waits_for_a_key() -> None:
    found = discrete(MiniGridConfig(), 7)
    assert found.idle is None
    labels = by_label(found)
    assert labels["forward"] == (("ArrowUp",), (2.0,))
    assert labels["toggle"] == (("Space",), (5.0,))


def test_crafter_and_procgen() -> None:
    crafter = discrete(CrafterConfig(), 17)
    assert by_label(crafter)["move up"] == (("ArrowUp",), (3.0,))
    assert (crafter.idle, len(crafter.bindings)) == ((0.0,), 16)
    procgen = discrete(ProcgenConfig(), 15)
    assert set(by_label(procgen)["left down"][0]) == {"ArrowLeft", "ArrowDown"}
    assert (procgen.idle, len(procgen.bindings)) == ((4.0,), 14)


def doom(*buttons: str) -> KeyMap:
    return discrete(VizDoomConfig(buttons=buttons), 1 + len(buttons))


CORRIDOR = (
    "MOVE_LEFT", "MOVE_RIGHT", "ATTACK", "MOVE_FORWARD", "MOVE_BACKWARD", "TURN_LEFT", "TURN_RIGHT",
)  # fmt: skip
"""Of deadly_corridor."""


def test_doom() -> None:
    labels = by_label(doom("ATTACK", "MOVE_LEFT", "MOVE_LEFT+ATTACK"))
    assert labels["attack"][0] == ("Space",)
    assert labels["move left"][0] == ("ArrowLeft",)
    assert set(labels["move left+attack"][0]) == {"ArrowLeft", "Space"}


@pytest.mark.parametrize("buttons", [CORRIDOR, FEW["deathmatch"]], ids=["deadly_corridor", "deathmatch"])
def test_where_doom_turns_one_steps_aside_by_letters(buttons: tuple[str, ...]) -> None:
    labels = by_label(doom(*buttons))
    expected = {
        "move left": "KeyA",
        "move right": "KeyD",
        "turn left": "ArrowLeft",
        "turn right": "ArrowRight",
    }
    assert {label: labels[label][0] for label in expected} == {
        label: (key,) for label, key in expected.items()
    }
    assert len(labels) == len(buttons)
    if "MOVE_FORWARD+TURN_LEFT" in buttons:
        assert set(labels["move forward+turn left"][0]) == {"ArrowUp", "ArrowLeft"}


def test_two_words_for_one_key() -> None:
    labels = by_label(doom("ATTACK", "JUMP"))
    assert [keys for keys, _ in labels.values()] == [("Space",), ("Digit1",)]


def test_boxes() -> None:
    cover = key_map(TakeCoverConfig(), ActionCodec(1, (-1.0,), (1.0,)))
    assert cover.idle == (0.0,)
    assert by_label(cover) == {"left": (("ArrowLeft",), (-1.0,)), "right": (("ArrowRight",), (1.0,))}
    car = key_map(CarRacingConfig(), ActionCodec(3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    assert by_label(car)["gas"] == (("ArrowUp",), (None, 1.0, None))
    assert by_label(car)["brake"][1] == (None, None, 0.8)
    away = key_map(ToyConfig(id="dodge"), ActionCodec(2, (1.0, -2.0), (3.0, -1.0)))
    assert away.idle == (1.0, -1.0), "rest is within the bounds"


def test_counter_strike_has_no_keys_of_the_browser() -> None:
    names = ("w", "a", "left ctrl", "left shift", "mouse x -60", "mouse x 0", "mouse x 60")
    found = key_map(RecordedConfig(kind="switches", actions=names), ActionCodec(7, (0.0,) * 7, (1.0,) * 7))
    assert by_label(found)["crouch"] == (("KeyC",), (None, None, 1.0, None, None, None, None))
    assert not {"ControlLeft", "AltLeft", "MetaLeft"} & {key for b in found.bindings for key in b.keys}


def test_unknown_games_get_numbers() -> None:
    found = discrete(GymConfig(id="CartPole-v1"), 2)
    assert [b.keys for b in found.bindings] == [("Digit1",), ("Digit2",)]
    assert found.idle is None
    several = key_map(GymConfig(), ActionCodec(5, groups=(3, 2)))
    assert [b.action for b in several.bindings] == [(1.0, None), (2.0, None), (None, 1.0)]
    assert several.idle == (0.0, 0.0)


@pytest.mark.parametrize(
    "found",
    [
        discrete(AtariConfig(), 18), discrete(MiniGridConfig(), 7), discrete(CrafterConfig(), 17),
        discrete(ProcgenConfig(), 15), discrete(GymConfig(), 30),
        doom(*CORRIDOR), doom(*FEW["deathmatch"]), doom("ATTACK", "JUMP"),
        key_map(GymConfig(), ActionCodec(40, (-1.0,) * 40, (1.0,) * 40)),
    ],
    ids=["atari", "minigrid", "crafter", "procgen", "many", "deadly_corridor", "deathmatch", "two words",
         "large box"],
)  # fmt: skip
def test_no_key_means_two_things(found: KeyMap) -> None:
    combinations = [frozenset(binding.keys) for binding in found.bindings]
    assert len(set(combinations)) == len(combinations)
    assert not set(itertools.chain(*combinations)) & PAGE
