"""`write_report`: a run as one HTML file that needs nothing else, for a reader who has never seen the project."""

import os
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import oneiro
from oneiro.evaluation import sections
from oneiro.evaluation.report_data import Clip, Line, ReportData

__all__ = ["Clip", "Line", "ReportData", "write_report"]


def write_report(folder: Path, data: ReportData) -> Path:
    """Write `folder`/report.html, all or nothing, and return its path."""
    template = resources.files("oneiro.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    page = Template(template).substitute(
        title=escape(data.title),
        intro=escape(data.intro),
        version=escape(oneiro.__version__),
        headline=sections.headline(data),
        results=sections.results(data),
        films=sections.films(data),
        temperature=sections.temperature(data),
        curves=sections.curves(data),
        making=sections.making(data),
        recipe=sections.recipe(data),
    )
    path = folder / "report.html"
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)
    return path
