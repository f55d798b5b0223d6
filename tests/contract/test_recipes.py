"""The world and the behaviour of every recipe keep the contract at every size."""

from functools import cache
from typing import Any

import pytest
import torch

from oneiro.recipes import entries
from oneiro.spaces import Spaces
from oneiro.testing import check_behaviour, check_world, require
from oneiro.training.recipe import Recipe
from oneiro.training.run import build_agent

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


def kind(recipe: Recipe) -> tuple[Any, ...]:
    """What makes an agent another program: its classes, and what it is shown and does, but not its widths."""
    found = spaces(recipe.env)
    shown = tuple(sorted((name, len(shape)) for name, shape in found.obs.items()))
    return type(recipe.world), type(recipe.behaviour), shown, found.action.is_discrete


def cases() -> list[Any]:
    """The smallest recipe of every kind by default, all others among the slow tests."""
    smallest: dict[tuple[Any, ...], str] = {}
    for name in sorted(RECIPES, key=lambda name: weights(RECIPES[name])):
        smallest.setdefault(kind(RECIPES[name]), name)
    return [
        pytest.param(name, marks=() if name in smallest.values() else pytest.mark.slow) for name in RECIPES
    ]


@pytest.mark.parametrize("name", cases())
def test_a_recipe_conforms(name: str) -> None:
    recipe = RECIPES[name]
    agent = build_agent(recipe, spaces(recipe.env))
    require(check_world(agent.world))
    require(check_behaviour(agent.behaviour, agent.world))
