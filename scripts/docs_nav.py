"""Navigation of the documentation: pages in this order, then every system; a page that is not written is left out.

Links to files outside docs/ lead somewhere in the repository but not on the site: there only their text stays.
"""

import re
from pathlib import Path
from typing import Any

ORDER = (
    ("Start", "index.md"),
    ("Architecture", "architecture.md"),
    ("Environments", "environments.md"),
    ("Data", "data.md"),
    ("Training", "training.md"),
    ("Several GPUs and machines", "distributed.md"),
    ("Evaluation", "evaluation.md"),
    ("Speed", "speed.md"),
    ("Dreams as environments", "dreams.md"),
    ("Playing in a dream", "play.md"),
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


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Called for every page before it becomes HTML."""
    folder = Path(config["docs_dir"]).resolve()
    here = (folder / page.file.src_uri).parent

    def plain(link: re.Match[str]) -> str:
        is_inside = (here / link[2]).resolve().is_relative_to(folder)
        return link[0] if is_inside else f"`{link[1]}`"

    return re.sub(r"\[([^\]\[]+)\]\((\.\./[^)#\s]+)\)", plain, markdown)
