"""The command line. Its commands call the library. Answers go to stdout; progress and warnings go to stderr."""

import errno
import io
import sys
import warnings

import torch

from howsparse import parallel
from howsparse.cli import deploying, evaluation, experiments, networks, paper, pruning, reporting
from howsparse.cli.app import COMMANDS, app
from howsparse.cli.paths import with_checked_paths
from howsparse.cli.terminal import console, note, patient_stdout
from howsparse.errors import InputError, first_line
from howsparse.loading import importing_from_here

__all__ = ["app", "deploying", "evaluation", "experiments", "main", "networks", "paper", "pruning", "reporting"]

app.registered_commands.sort(key=lambda command: COMMANDS.index(command.name or command.callback.__name__))  # type: ignore[union-attr]

for _command in app.registered_commands:
    _command.callback = with_checked_paths(_command.callback)  # type: ignore[arg-type]

_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)

_EXTRAS = {
    "datasets": "tasks",
    "joblib": "tasks",
    "matplotlib": "plots",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "PIL": "tasks",
    "sklearn": "tasks",
    "transformers": "huggingface",
    "yaml": "tasks",
}


def main() -> None:
    """Entry point. An input error is printed as one line, with exit code 2. Only the first process prints."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {' '.join(str(message).split())}\n"
    try:
        parallel.join()
        if not parallel.is_first():
            console.quiet = True
            sys.stdout = io.StringIO()
        with importing_from_here(), patient_stdout():
            app()
    except InputError as error:
        note(f"howsparse: {error}")
        sys.exit(2)
    except torch.OutOfMemoryError as error:
        note(f"howsparse: {first_line(error)}. Give a smaller --batch-size")
        sys.exit(2)
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        where = "" if error.filename is None else f" {error.filename}"
        note(f"howsparse: cannot read or write{where}: {error.strerror}")
        sys.exit(2)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        mend = f"run pip install 'howsparse[{extra}]'" if extra else "install it in this environment"
        note(f"howsparse: the package '{error.name}' is missing; {mend}")
        sys.exit(2)
