"""The world and the behaviour of every recipe keep the contract: each kind with small widths, all others if asked."""

from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch

from oneiro.recipes import entries
from oneiro.spaces import Spaces
from oneiro.testing import check_behaviour, check_world, require
from oneiro.training.recipe import Recipe
from oneiro.training.run import build_agent
from oneiro.worlds.vmc import VMCConfig

LARGEST = 8_000_000
"""Weights of an agent that is checked; what larger sizes share with these is their code."""


@cache
def spaces(env: Any) -> Spaces:
    """Those of an environment, which is opened once."""
    return env.spaces()


def weights(recipe: Recipe) -> int:
    """Number of weights of the agent, counted without making them."""
    with torch.device("meta"):
        agent = build_agent(recipe, spaces(recipe.env))
    return sum(p.numel() for p in agent.parameters())


def different() -> dict[str, Recipe]:
    """Recipes at their sizes, without large ones and those that build the same agent as one before."""
    found: dict[str, Recipe] = {}
    seen: list[Any] = []
    for name, entry in entries().items():
        for size in entry.sizes:
            recipe = entry.build(size)
            agent = (recipe.world, recipe.behaviour, spaces(recipe.env))
            if agent not in seen and weights(recipe) <= LARGEST:
                seen.append(agent)
                found[f"{name}-{size}"] = recipe
    return found


RECIPES = different()


def choices(config: Any) -> dict[str, Any]:
    """What a config chooses, dotted: words and switches, but no widths, and no size, which names widths."""
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            found |= {f"{field.name}.{name}": inner for name, inner in choices(value).items()}
        elif isinstance(value, str | bool) and field.name != "size":
            found[field.name] = value
    return found


def kind(recipe: Recipe) -> tuple[Any, ...]:
    """What makes an agent another program: its classes, what it is shown and does, and what it chooses."""
    found = spaces(recipe.env)
    shown = tuple(sorted((name, len(shape)) for name, shape in found.obs.items()))
    agent = [(type(config), tuple(choices(config).items())) for config in (recipe.world, recipe.behaviour)]
    return *agent, shown, found.action.is_discrete


NARROW = {"z_dim": 4, "hidden_dim": 8, "cond_dim": 16, "num_mixtures": 2}


def narrow(config: Any) -> Any:
    """The config with small widths, so that its program is checked in seconds."""
    changed: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            changed[field.name] = narrow(value)
        elif field.name == "channels":
            changed[field.name] = (8,) * len(value)
        elif field.name in NARROW and value:
            changed[field.name] = min(value, NARROW[field.name])
    return replace(config, **changed)


def smallest() -> dict[tuple[Any, ...], str]:
    """The smallest recipe of every kind."""
    found: dict[tuple[Any, ...], str] = {}
    for name in sorted(RECIPES, key=lambda name: weights(RECIPES[name])):
        found.setdefault(kind(RECIPES[name]), name)
    return found


SMALLEST = smallest()


def test_forms_of_one_world_are_kinds_of_their_own() -> None:
    chosen = [
        (recipe.world.feature, recipe.world.action_input, recipe.world.ending, recipe.behaviour.squash)
        for recipe in (RECIPES[name] for name in SMALLEST.values())
        if isinstance(recipe.world, VMCConfig)
    ]
    assert set(chosen) == {
        ("zch", "raw", "threshold", "tanh"),  # paper, TakeCover
        ("zh", "thirds", "sample", "tanh"),  # demo, TakeCover
        ("zh", "raw", "threshold", "car"),  # car racing
    }


@pytest.mark.parametrize("name", SMALLEST.values())
def test_a_recipe_of_every_kind_conforms(name: str) -> None:
    recipe = RECIPES[name]
    recipe = replace(recipe, world=narrow(recipe.world), behaviour=narrow(recipe.behaviour))
    assert kind(recipe) == kind(RECIPES[name])
    conforms(recipe)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_conforms_at_its_own_widths(name: str) -> None:
    conforms(RECIPES[name])


def conforms(recipe: Recipe) -> None:
    """Require it of the world and of the behaviour."""
    agent = build_agent(recipe, spaces(recipe.env))
    require(check_world(agent.world))
    require(check_behaviour(agent.behaviour, agent.world))
