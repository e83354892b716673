"""The command line: a thin face on the library. Answers go to stdout, progress and warnings to stderr."""

import io
import sys

from howsparse import parallel
from howsparse.cli import experiments, networks
from howsparse.cli.app import app
from howsparse.cli.terminal import console, note
from howsparse.errors import InputError

__all__ = ["app", "experiments", "main", "networks"]


def main() -> None:
    """Entry point: input errors become one line and exit code 2. Of several processes, the first speaks."""
    try:
        parallel.join()
        if not parallel.is_first():
            console.quiet = True
            sys.stdout = io.StringIO()
        app()
    except InputError as error:
        note(f"howsparse: {error}")
        sys.exit(2)
    except ModuleNotFoundError as error:
        note(f"howsparse: this needs the package '{error.name}'; pip install 'howsparse[all]' brings it")
        sys.exit(2)
