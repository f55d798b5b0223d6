"""Memory of an update counted on shapes, and what follows from it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from oneiro.cli.fit import amount
from oneiro.errors import OneiroError
from oneiro.recipes import find
from oneiro.spaces import ActionCodec, Spaces
from oneiro.training import needs as needs_module
from oneiro.training.actors import Actors
from oneiro.training.memory_count import count_update, with_batch
from oneiro.training.needs import check_machine, largest_batch, online_stage

SPACES = Spaces({"vector": (4,)}, ActionCodec(2))


def test_parameters_and_optimizer_are_exact_and_activations_grow_with_the_batch():
    recipe = find("dreamerv3-gym").build("smoke")
    stage = online_stage(recipe)
    assert stage is not None
    small, large = (count_update(recipe, SPACES, with_batch(stage, n)) for n in (4, 12))
    world = recipe.world.build(SPACES)
    behaviour = recipe.behaviour.build(SPACES, world.feature_dim)
    trained = [p for m in (world, behaviour) for p in m.parameters() if p.requires_grad]
    count = sum(p.numel() for p in trained)
    assert small.parameters["world"] + small.parameters["behaviour"] == count
    assert 8 * count <= small.optimizer < 8 * count + 4096  # mean and square in float32
    assert small.weights == large.weights
    more, less = (
        x.peak - x.weights - x.optimizer - 4 * count for x in (large, small)
    )  # activations and batch
    assert 2.5 < more / less < 3.2
    assert small.memo == sum(x.nbytes for x in world.memo(world.start(1)).values())


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GB", 24 * 10**9), ("24 GiB", 24 * 2**30), ("8000MB", 8 * 10**9), ("1.5gb", 15 * 10**8)],
)
def test_amounts(text: str, size: int):
    assert amount(text) == size


@pytest.mark.parametrize("text", ["24", "GB", "0GB", "-1GB", "24 apples", "1e3GB"])
def test_what_is_no_amount(text: str):
    with pytest.raises(OneiroError, match="24GB, 24GiB or 8000MB"):
        amount(text)


def test_the_largest_batch_is_found_to_a_sixteenth():
    for limit in (0, 1, 3, 16, 100, 777):
        found = largest_batch(lambda n, limit=limit: n <= limit, 16)
        assert limit * 15 / 16 - 1 < found <= limit


def test_a_machine_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = find("dreamerv3-gym").build("smoke")
    check = (recipe, SPACES, torch.device("cpu"), tmp_path, 10**9)
    monkeypatch.setattr(needs_module, "memory_of", lambda device: ("RAM", 1 << 20))
    with pytest.warns(UserWarning, match=r"GiB of RAM, the machine has 0.0.*--size"):
        check_machine(*check)
    monkeypatch.setattr(needs_module, "memory_of", lambda device: ("RAM", 1 << 50))
    online = replace(recipe.schedule.online, steps=1_000_000)
    check = (replace(recipe, schedule=replace(recipe.schedule, online=online)), *check[1:])
    for free, expected in ((100 << 20, UserWarning), (1 << 20, OneiroError)):
        disk = SimpleNamespace(free=free)
        monkeypatch.setattr(needs_module.shutil, "disk_usage", lambda path, disk=disk: disk)
        how = pytest.warns if expected is UserWarning else pytest.raises
        with how(expected, match=r"latents of 1,000,000 rows.*--data.capacity"):
            check_machine(*check)


def test_experience_actors_take_memory_and_have_workers_of_their_own():
    recipe = find("dreamerv3-gym").build("smoke")
    stage, cpu = online_stage(recipe), torch.device("cpu")
    assert stage is not None
    recipe = replace(recipe, env=replace(recipe.env, num=8, processes=2))
    alone, counted = needs_module.needs(recipe, SPACES, stage, cpu, 2**28)
    together, _ = needs_module.needs(recipe, SPACES, replace(stage, actors=Actors(num=4)), cpu, 2**28)
    assert alone.actors == 0
    assert together.actors == 4 * (needs_module._ACTOR + counted.weights) + needs_module._RAY
    assert together.environments == 4 * alone.environments
    grown = together.actors + together.environments - alone.environments
    assert together.ram - alone.ram == grown
