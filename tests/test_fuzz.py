"""A part of what `make fuzz` tries: no input ends in a traceback, a hang, code that is run, or a file that is lost."""

from pathlib import Path

import pytest
from benchmarks.fuzz import try_kind
from benchmarks.fuzz_inputs import KINDS
from benchmarks.fuzz_samples import Evil, fill
from benchmarks.fuzz_sandbox import Sandbox

_FEW = {"options": 15, "paths": 15, "folders": 8}


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_is_a_fault(kind: str, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("MPLCONFIGDIR", "HF_HOME"):
        monkeypatch.setenv(name, "")  # the sandbox sets them
    _, _, faults = try_kind(kind, _FEW.get(kind, 40), 0, fill)
    assert faults == {}


def test_the_sandbox_sees_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MPLCONFIGDIR", "HF_HOME"):
        monkeypatch.setenv(name, "")
    sandbox, outside = Sandbox(lambda: Path("kept").touch(), seconds=1), tmp_path / "outside"

    def hang() -> None:
        while True:
            pass

    try:
        for attempt, fault in (
            (lambda: outside.write_text("lost"), "Forbidden"),
            (lambda: Path("kept").write_text("lost"), "kept was lost"),
            (lambda: Evil().__reduce__()[0](Evil().__reduce__()[1][0]), "code from data was run"),
            (lambda: 1 / 0, "ZeroDivisionError"),
            (hang, "Hang"),
        ):

            def tried(attempt: object = attempt) -> None:
                attempt()  # type: ignore[operator]

            assert fault in (sandbox.fault(tried) or "")
            sandbox.restore()
        assert not outside.exists()
        assert sandbox.fault(lambda: None) is None
    finally:
        sandbox.close()
