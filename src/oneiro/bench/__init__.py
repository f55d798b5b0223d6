"""How fast this machine trains, dreams and plays: `oneiro bench`."""

from oneiro.bench.measure import bench
from oneiro.bench.table import table

__all__ = ["bench", "table"]
