"""A folder in which one input after another is tried, and what counts as a fault of the program.

An input must end in an answer or in one line that refuses it. It must not write, remove or run anything outside of the
folder, read the network, run code from data, or change a file that it was not told to change. Python's audit hooks
watch this, and forbid it.
"""

import faulthandler
import io
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import datasets

from howsparse.cli import main
from howsparse.errors import InputError

__all__ = ["CANARY", "Sandbox", "command"]

CANARY = "canary"  # code from data would make a file of this name
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {  # how many of the arguments of an audit event are paths that change
    "os.remove": 1,
    "os.rmdir": 1,
    "os.mkdir": 1,
    "os.truncate": 1,
    "os.chmod": 1,
    "shutil.rmtree": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
}
_FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.getaddrinfo", "socket.bind")
_allowed: list[str] = []  # folders below which files may change; none: nothing is watched


class Forbidden(BaseException):
    """The program tried something that no input may make it do. No handler of the program may catch this."""


class Hang(BaseException):
    """An input took longer than it may."""


class Sandbox:
    """A temporary folder with sample files, the same before every input.

    Args:
        fill: writes the sample files into the working folder.
        seconds: how long an input may take, of the processor.
    """

    def __init__(self, fill: Callable[[], None], seconds: int = 60) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="howsparse-fuzz-")).resolve()
        self.folder, self.seconds = self.root / "work", seconds
        self.refused = 0  # how many inputs were refused in one line
        (self.root / "tmp").mkdir()
        self.folder.mkdir()
        self._came_from = Path.cwd()
        self._tempdir, tempfile.tempdir = tempfile.tempdir, str(self.root / "tmp")
        self._environ = dict(os.environ)
        os.environ["MPLCONFIGDIR"] = os.environ["HF_HOME"] = str(self.root / "caches")
        # datasets reads HF_HOME when it is imported, which another test may have done.
        self._cache, datasets.config.HF_DATASETS_CACHE = datasets.config.HF_DATASETS_CACHE, self.root / "caches"
        os.chdir(self.folder)
        fill()
        self._sample = {name: (self.folder / name).read_bytes() for name in self._names()}
        shutil.copytree(self.folder, self.root / "sample", symlinks=True, copy_function=_copy)

    def close(self) -> None:
        os.chdir(self._came_from)
        tempfile.tempdir = self._tempdir
        datasets.config.HF_DATASETS_CACHE = self._cache
        os.environ.clear()
        os.environ.update(self._environ)
        shutil.rmtree(self.root)

    def fault(self, attempt: Callable[[], str | None], may_change: frozenset[str] = frozenset()) -> str | None:
        """What is wrong with how the program takes an input; None if nothing is.

        Args:
            attempt: gives the program the input, and returns what is wrong with the answer. It may raise `InputError`.
            may_change: sample files that the input names as files to write.
        """
        try:
            with _limits(self.seconds), _watched(str(self.root)), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = attempt()
        except InputError as error:
            self.refused += 1
            found = None if "\n" not in str(error) and str(error) else f"a refusal of several lines: {error}"
        except (Forbidden, Hang) as error:
            found = f"{type(error).__name__}: {error}"
        except BaseException as error:
            found = f"{type(error).__name__} in {_place(error)}: {str(error)[:200]}"
        return found or self._left(may_change)

    def restore(self) -> None:
        """Make the folder again as it was. All files are small."""
        for entry in self.folder.iterdir():
            _remove(entry)
        for entry in (self.root / "tmp").iterdir():
            _remove(entry)
        shutil.copytree(self.root / "sample", self.folder, symlinks=True, copy_function=_copy, dirs_exist_ok=True)

    def _left(self, may_change: frozenset[str]) -> str | None:
        """Files that were lost, and code that was run. A file of records may only have grown."""
        if (self.folder / CANARY).exists():
            return "code from data was run"
        for name, content in self._sample.items():
            path = self.folder / name
            now = path.read_bytes() if path.is_file() else None
            grown = name in may_change and now is not None
            if now != content and not grown:
                return f"{name} was lost or changed"
        hidden = [path.name for path in self.folder.rglob(".*")]
        left = [name for name in hidden if not name.endswith((".lock", ".locks"))]  # of records and stores; they stay
        return f"a temporary file was left: {left[0]}" if left else None

    def _names(self) -> list[str]:
        return [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]


def command(arguments: list[str]) -> str | None:
    """Call the command line in this process.

    Returns:
        What is wrong with how it ended; None if it gave an answer.

    Raises:
        InputError: it refused the command in one line, with exit code 2.
    """
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["howsparse", *arguments]
    code: object = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = before
    if code == 0:
        return _no_json(out.getvalue()) if "--json" in arguments and "--help" not in arguments else None
    said = [line for line in err.getvalue().splitlines() if line.strip()]
    refusals = [line for line in said if line.startswith("howsparse: ")]
    usage = any(line.startswith("Usage: ") for line in said)
    if code == 2 and "Traceback" not in err.getvalue() and (usage or refusals == said[-1:]):
        raise InputError(said[-1])
    return f"exit code {code}, said: {' / '.join(said[-3:])[:300]}"


def _no_json(text: str) -> str | None:
    try:
        json.loads(text)
    except ValueError:
        return f"no JSON: {text[:100]}"
    return None


def _place(error: BaseException) -> str:
    """The last line of this package in a traceback, and where the error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/howsparse/" in frame.filename]
    at = [own[-1]] if own and own[-1] is not frames[-1] else []
    return ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in [*at, frames[-1]])


@contextmanager
def _limits(seconds: int) -> Iterator[None]:
    """Raise `Hang` after some time; end the process with a traceback if it does not come back from a library.

    The time is that of the processor, so that a busy machine is not taken for a hang. An input that waits for something
    has ten times as long.
    """

    def stop(*_: object) -> None:
        raise Hang(f"longer than {seconds} seconds")

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, 10 * seconds))
    before = [signal.signal(number, stop) for number, _, _ in timers]
    for _, timer, limit in timers:
        signal.setitimer(timer, limit)
    faulthandler.dump_traceback_later(15 * seconds, exit=True, file=2)
    try:
        yield
    finally:
        for _, timer, _ in timers:
            signal.setitimer(timer, 0)
        faulthandler.cancel_dump_traceback_later()
        for (number, _, _), handler in zip(timers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _watched(root: str) -> Iterator[None]:
    _allowed.append(root)
    try:
        yield
    finally:
        _allowed.remove(root)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook. It cannot be removed, so it does nothing outside of `_watched`."""
    if not _allowed:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITES:
            _check_path(event, path)
    elif event in _PATHS:
        for path in arguments[: _PATHS[event]]:
            _check_path(event, path)
    elif event == "subprocess.Popen":
        if Path(str(arguments[0])).name not in ("git", "fc-list"):  # the commit of a record, the fonts of a picture
            raise Forbidden(f"{event} {arguments[1]}")
    elif event in _FORBIDDEN and not (event == "socket.bind" and arguments[0].family == socket.AF_UNIX):
        raise Forbidden(f"{event} {arguments}")


def _check_path(event: str, path: object) -> None:
    if isinstance(path, int) or path is None or path == os.devnull:
        return
    text = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
    if not any(text == root or text.startswith(root + os.sep) for root in _allowed):
        raise Forbidden(f"{event} {text}")


def _copy(source: str, target: str) -> None:
    """Copy a file, or make a pipe as the one at ``source``."""
    if Path(source).is_fifo():
        os.mkfifo(target)
    else:
        shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


sys.addaudithook(_watch)
