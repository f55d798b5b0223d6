"""The result of `bench` as text."""

import io
from typing import Any

from rich.console import Console
from rich.table import Table


def table(result: dict[str, Any]) -> str:
    """One line per work: rate (median, range), the released code's, shares, plain PyTorch, ratio (median, range)."""
    compared = any("naive" in record for record in result["records"])
    published = next((r["published"] for r in result["records"] if "published" in r), None)
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("what", "shape"):
        grid.add_column(column)
    theirs = ("published",) if published else ()
    for column in ("rate", "range", "unit", *theirs, "GFLOP/s", "conv", "of peak"):
        grid.add_column(column, justify="left" if column == "unit" else "right")
    if compared:
        for column in ("plain PyTorch", "ratio", "range"):
            grid.add_column(column, justify="right")
    for record in result["records"]:
        grid.add_row(*_cells(record, compared, published is not None))
    out = io.StringIO()
    Console(file=out, width=160).print(grid)
    lines = [
        result["device"],
        f"compute dtype {result['compute_dtype']}, allocator: {result['allocator']}",
        "peak GFLOP/s: " + ", ".join(f"{k} {v:,.0f}" for k, v in result["peak_gflops"].items()),
        "",
        *(line.rstrip() for line in out.getvalue().splitlines()),
        "",
        f"peak RAM {result['peak_ram_gib']:.2f} GiB",
        "of peak: convolutions (conv, of all operations) against the peak of convolutions, the rest against that of "
        "matrix products",
    ]
    lines += [f"skipped {r['name']}: {r['skipped']}" for r in result["records"] if "skipped" in r]
    if compared:
        lines.append(
            "plain PyTorch: same shapes and device, own process, default allocator and settings, float32"
        )
    if published:
        lines.append(f"published: {published['code']}, {published['measured']}")
    lines += [f"{r['name']}: {r['note']}" for r in result["records"] if "note" in r]
    return "\n".join(lines)


def _cells(record: dict[str, Any], compared: bool, published: bool) -> list[str]:
    if "skipped" in record:
        return [record["name"], record["shape"], "-"]
    spread = f"{_short(record['min'])} - {_short(record['max'])}" if "max" in record else ""
    shares = [f"{record[k]:.0%}" if k in record else "" for k in ("convolutions", "share_of_peak")]
    gflops = _short(record["gflops"]) if "gflops" in record else ""
    cells = [record["name"], record["shape"], _short(record["median"]), spread, record["unit"]]
    if published:
        cells.append(_short(record["published"]["median"]) if "published" in record else "")
    cells += [gflops, *shares]
    if compared and "naive" in record:
        ratio = record["speedup"]
        cells += [
            _short(record["naive"]["median"]),
            f"{ratio['median']:.2f}x",
            f"{ratio['min']:.2f} - {ratio['max']:.2f}",
        ]
    return cells


def _short(number: float) -> str:
    """Three significant digits, thousands with commas."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
