"""Kills commands at random moments: the same command afterwards must give the same bits, and leave nothing behind.

    python -m benchmarks.kills [COMMAND ...] [--seed 0] [--record results/reliability.jsonl]

A round kills a command up to three times by SIGKILL, each time at a random moment of what it takes, and then lets it
end. What it wrote is compared with what it writes undisturbed. Processes, shared memory, temporary files and records
that are there twice count as wrong.
"""

import argparse
import ctypes
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import joblib  # noqa: F401  imported once, not in every child
import torch

from benchmarks.commands import own_command
from benchmarks.fuzz_samples import fill
from howsparse.cli import main as howsparse
from howsparse.records import Measurement, append_record, provenance

_RECORD = ("--record", "made.jsonl")
_COMMANDS: dict[str, tuple[int, tuple[str, ...]]] = {  # how often each is killed
    "train": (60, ("train", "nets:problem", "--epochs", "40", "--output", "made.safetensors", *_RECORD)),
    "limit": (60, ("limit", "nets:net", "--data", "nets:batches", "--keep", "kept", "--json")),
    "compare": (50, ("compare", "nets:problem", "--methods", "dense,one_shot,random", "--sparsities", "0.5,0.8",
                     "--seeds", "2", "--epochs", "3", *_RECORD)),
    "run": (30, ("run", "nets:problem", "--sparsity", "limit", "--max-products", "32", *_RECORD)),
    "sweep": (15, ("sweep", "sweep.yaml", "--jobs", "2", *_RECORD)),
}  # fmt: skip
_MEASURED = ("made", "seconds", "training_seconds")  # fields that differ between two runs
_ROUND = 3  # kills of a round
_GRACE = (
    120.0  # seconds: a worker notices that nobody waits for it after its imports, which take long on a busy machine
)
_SHARED = Path("/dev/shm")
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: the children of killed processes become children of this one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", default=list(_COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, default=Path("results/reliability.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    record, wrong = options.record.resolve(), 0
    for name in options.commands:
        kills, words = _COMMANDS[name]
        tried, faults = killed(words, kills, random.Random(options.seed))
        print(name, tried, faults, file=sys.stderr, flush=True)
        wrong += len(faults)
        made = provenance(own_command("benchmarks.kills"))
        numbers = {"tried": tried, "wrong": len(faults), "seed": options.seed}
        append_record(Measurement(kind="reliability", made=made, check=f"{name}, killed", **numbers), record)
    sys.exit(wrong > 0)


def killed(words: tuple[str, ...], kills: int, draw: random.Random) -> tuple[int, list[str]]:
    """Kill a command so many times, and say what was wrong in each round."""
    root = Path(tempfile.mkdtemp(prefix="howsparse-kills-"))
    os.environ["TMPDIR"] = os.environ["JOBLIB_TEMP_FOLDER"] = str(root / "tmp")
    tried, faults = 0, []
    try:
        _begin(root)
        began = time.monotonic()
        assert _ended(_start(words, root)) == 0, (root / "said").read_text()
        takes, whole = time.monotonic() - began, _written(root)
        while tried < kills:
            _begin(root)
            pids, before = [], set(_SHARED.iterdir())
            for _ in range(_ROUND):
                pids.append(_start(words, root))
                time.sleep(draw.uniform(0.0, takes))
                os.kill(pids[-1], signal.SIGKILL)
                tried += os.waitpid(pids[-1], 0)[1] == signal.SIGKILL
            pids.append(_start(words, root))
            code = _ended(pids[-1])
            if code == 2 and "made.safetensors exists" in (root / "said").read_text():
                code = 0  # a kill came after the last file was written: what is there must be right
            fault = f"exit code {code}: {(root / 'said').read_text()[-300:]}" if code else _compared(root, whole)
            faults += [each for each in (fault, _left(root, pids, before)) if each]
    finally:
        shutil.rmtree(root)
    return tried, faults


def _begin(root: Path) -> None:
    """An empty working folder with the sample files. The test runs in it, and so do its children."""
    os.chdir(root)
    for name in ("work", "tmp"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir()
    os.chdir(root / "work")
    fill()
    tasks = "tasks:\n  - {task: 'nets:problem', recipe: {epochs: 2}}\n"
    Path("sweep.yaml").write_text(f"{tasks}methods: [dense, one_shot]\nsparsities: [0.5, 0.8]\nseeds: 2\n")


def _start(words: tuple[str, ...], root: Path) -> int:
    """Start the command in a child, which is a copy of this process, so that nothing is imported again."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        for stream, name in ((1, "answer"), (2, "said")):
            os.dup2(os.open(root / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        tempfile.tempdir = str(root / "tmp")
        sys.argv = ["howsparse", *words]
        howsparse()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    except BaseException as error:
        os.write(2, repr(error).encode())
    finally:
        sys.stdout.flush()
        os._exit(code)


def _ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _written(root: Path) -> dict[str, Any]:
    """What a command answered and wrote: bits of weights, and records without times."""
    weights, records = root / "work" / "made.safetensors", root / "work" / "made.jsonl"
    lines = records.read_text().splitlines() if records.exists() else []
    answer = (root / "answer").read_text()
    return {
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest() if weights.exists() else None,
        "records": sorted(json.dumps(_plain(json.loads(line)), sort_keys=True) for line in lines),
        "answer": _plain(json.loads(answer)) if answer.startswith("{") else None,
    }


def _plain(value: Any) -> Any:
    """A JSON value without the fields that are measured."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if key not in _MEASURED}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _compared(root: Path, whole: dict[str, Any]) -> str | None:
    found = _written(root)
    if len(found["records"]) != len(whole["records"]):
        return f"{len(found['records'])} records instead of {len(whole['records'])}"
    wrong = [name for name, each in whole.items() if found[name] != each]
    return f"other {wrong[0]} than undisturbed" if wrong else None


def _left(root: Path, pids: list[int], before: set[Path]) -> str | None:
    """What is left of commands that have ended: processes, shared memory that was not there before, temporary files."""
    processes, deadline = _children(), time.monotonic() + _GRACE
    while processes and time.monotonic() < deadline:
        time.sleep(0.1)
        processes = _children()
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    shared = [file.name for file in set(_SHARED.iterdir()) - before if _maker(file) in pids]
    files = [file.name for file in (root / "tmp").iterdir() if not file.name.startswith("torchinductor")]  # its cache
    files += [file.name for file in (root / "work").rglob(".*") if file.name != ".locks" and file.suffix != ".lock"]
    left = [f"process {pid}" for pid in processes] + shared + files
    return f"left: {', '.join(left)}" if left else None


def _maker(shared: Path) -> int | None:
    """The process that made some shared memory: its id is a part of the name."""
    found = re.search(r"[-_](\d+)[-_]", shared.name)
    return int(found[1]) if found else None


def _children() -> list[int]:
    """The processes that are still running below this one; those that have ended are waited for."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
        except ChildProcessError:
            return []


if __name__ == "__main__":
    main()
