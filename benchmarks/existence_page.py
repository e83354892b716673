"""docs/table-1.md from the records of `benchmarks.existence`."""

from collections.abc import Iterable
from typing import Any

__all__ = ["page"]


def page(lines: Iterable[dict[str, Any]]) -> str:
    return ""
