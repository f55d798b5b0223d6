"""Navigation of the documentation: pages in this order, then every system; a page that is not written is left out."""

from pathlib import Path
from typing import Any

ORDER = (
    ("Start", "index.md"),
    ("Architecture", "architecture.md"),
    ("Environments", "environments.md"),
    ("Data", "data.md"),
    ("Speed", "speed.md"),
    ("Metrics", "metrics.md"),
    ("Is my world right?", "conformance.md"),
)


def on_config(config: Any) -> Any:
    """Called by mkdocs before it looks for pages."""
    folder = Path(config["docs_dir"])
    nav: list[dict[str, Any]] = [{title: page} for title, page in ORDER if (folder / page).is_file()]
    systems = sorted(path.relative_to(folder).as_posix() for path in (folder / "systems").glob("*.md"))
    if systems:
        nav.insert(2, {"Systems": list(systems)})
    known = {page for _, page in ORDER} | set(systems)
    rest = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.md"))
    config["nav"] = nav + [page for page in rest if page not in known]
    return config
