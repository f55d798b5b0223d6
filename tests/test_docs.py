"""The documentation keeps up: every metric and every check is explained, no page links to nothing."""

import ast
import re
from pathlib import Path

import pytest

from oneiro.testing.suite import BEHAVIOUR_RULES, WORLD_RULES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
METRIC = re.compile(r"^(vision|memory|world|behaviour|evolve|collect|evaluate|optim|guard|time)/[a-z_]+$")


def logged_metrics() -> set[str]:
    """Names of metrics as they stand in the library."""
    found = set()
    for path in (ROOT / "src" / "oneiro").rglob("*.py"):
        if path.parts[-2] in ("testing", "bench"):
            continue
        tree = ast.parse(path.read_text())
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        strings = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docs]
        found |= {n.value for n in strings if isinstance(n.value, str) and METRIC.match(n.value)}
    return found


def test_every_metric_is_in_the_glossary() -> None:
    glossary = (DOCS / "metrics.md").read_text()
    metrics = logged_metrics()
    assert "vision/kl" in metrics
    assert sorted(name for name in metrics if f"`{name}`" not in glossary) == []


def test_every_check_of_worlds_is_explained() -> None:
    page = (DOCS / "conformance.md").read_text()
    assert [rule.name for rule in WORLD_RULES if f"| {rule.name} |" not in page] == []
    assert len(BEHAVIOUR_RULES) == 12, "mention the new one in docs/conformance.md"


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda p: p.relative_to(DOCS).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []
