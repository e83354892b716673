"""docs/authors.md from the records of `benchmarks.authors`."""

from collections.abc import Iterable
from typing import Any

__all__ = ["page"]


def page(lines: Iterable[dict[str, Any]]) -> str:
    return ""
