"""Run folders with scores that were not trained for."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oneiro.evaluation.episodes import Scores
from oneiro.evaluation.settings import settings_of
from oneiro.recipes import find
from oneiro.training.recipe import to_json, tweak
from oneiro.training.run_folder import RunFolder

RECIPES = Path(__file__).parent / "compared_recipes.py"


def make_run(
    path: Path,
    name: str,
    *,
    seed: int,
    evaluated: Sequence[float] = (),
    trained: Sequence[tuple[int, float]] = (),
    random: Sequence[float] = (),
    explore: bool = False,
    size: str | None = None,
    **fields: Any,
) -> Path:
    """A run of the recipe `name` with fields by dotted name ("env__game"); `trained` are (step, score)."""
    values = {key.replace("__", "."): value for key, value in fields.items()} | {"seed": seed}
    entry = find(f"{RECIPES}:{name}")
    recipe = tweak(entry.build(size), values)
    record = {"recipe": f"{RECIPES}:{name}", "size": size or entry.sizes[0], "values": to_json(recipe)}
    RunFolder.open(path, record, "oneiro train").close()
    events = [
        {"step": s, "time": s / 10, "stage": "online", "episode/score": x, "episode/length": 5}
        for s, x in trained
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    protocol = {"settings": settings_of(recipe.env), "explore": explore, "env": recipe.env.describe()}
    for policy, scores in (("real", evaluated), ("random", random)):
        if len(scores):
            ids = list(range(len(scores)))
            saved = Scores(score=list(scores), length=[1] * len(ids), ids=ids, protocol=protocol)
            saved.save(path / "scores" / f"{policy}.json")
    return path
