"""The test suite with this Python and this torch: how many tests pass, fail and are skipped.

    python -m benchmarks.compatibility [--record results/reliability.jsonl] [-- OPTIONS OF PYTEST]

Run it with the interpreter of each environment. The record says which versions these are.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import torch

from benchmarks.commands import own_command
from howsparse.records import Measurement, append_record, provenance

__all__ = ["counts", "main"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, default=Path("results/reliability.jsonl"))
    parser.add_argument("pytest", nargs="*", help="options of pytest")
    options = parser.parse_args()
    made = provenance(own_command("benchmarks.compatibility"))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        words = ["-m", "pytest", "-q", f"--junitxml={report}", f"--basetemp={folder}/tests", *options.pytest]
        subprocess.run([sys.executable, *words], check=False)
        found = counts(report.read_text())
    check = f"suite, Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}"
    append_record(Measurement(kind="reliability", made=made, check=check, **found), options.record)
    print(check, found, file=sys.stderr)
    sys.exit(found["wrong"] > 0)


def counts(report: str) -> dict[str, int]:
    """Numbers of tests in a report of pytest in the format of JUnit.

    >>> counts('<testsuites><testsuite tests="9" failures="1" errors="0" skipped="2" /></testsuites>')
    {'tried': 7, 'wrong': 1, 'skipped': 2}
    """
    suites = list(ElementTree.fromstring(report).iter("testsuite"))
    tests, failures, errors, skipped = (
        sum(int(suite.attrib[name]) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    return {"tried": tests - skipped, "wrong": failures + errors, "skipped": skipped}


if __name__ == "__main__":
    main()
