"""The world and the behaviour of every recipe keep the contract at every size."""

from typing import Any

import pytest
import torch

from oneiro.recipes import entries
from oneiro.testing import check_behaviour, check_world, require
from oneiro.training.recipe import Recipe
from oneiro.training.run import build_agent

LARGEST = 8_000_000
"""Weights of an agent that is checked; what larger sizes share with these is their code."""


def is_small(recipe: Recipe) -> bool:
    """Counted without making the weights."""
    with torch.device("meta"):
        agent = build_agent(recipe, recipe.env.spaces())
    return sum(p.numel() for p in agent.parameters()) <= LARGEST


def different() -> dict[str, Recipe]:
    """Recipes at their sizes, without large ones and those that build the same agent as one before."""
    found: dict[str, Recipe] = {}
    seen: list[Any] = []
    for name, entry in entries().items():
        for size in entry.sizes:
            recipe = entry.build(size)
            agent = (recipe.world, recipe.behaviour, recipe.env.spaces())
            if agent not in seen and is_small(recipe):
                seen.append(agent)
                found[f"{name}-{size}"] = recipe
    return found


RECIPES = different()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_conforms(name: str) -> None:
    recipe = RECIPES[name]
    agent = build_agent(recipe, recipe.env.spaces())
    for parameter in agent.behaviour.parameters():  # controllers begin at zero, where all actions are alike
        torch.nn.init.normal_(parameter, std=0.1)
    require(check_world(agent.world))
    require(check_behaviour(agent.behaviour, agent.world))
