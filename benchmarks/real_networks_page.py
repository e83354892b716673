"""The page that `benchmarks.real_networks` writes."""

from typing import Any


def page(records: list[dict[str, Any]]) -> str:
    return "\n"
