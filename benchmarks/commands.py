"""The command of a benchmark as its record holds it: without the folders of a machine."""

import sys

from howsparse.records.origin import portable_command

__all__ = ["own_command"]


def own_command(module: str) -> str:
    """The command that started this process, with its options.

    Args:
        module: of the benchmark, such as "benchmarks.limit".
    """
    return portable_command(["python", "-m", module, *sys.argv[1:]])
