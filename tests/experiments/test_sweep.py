"""Sweeps: no run lost, none done twice, on processes and on a cluster that loses a worker."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from howsparse.errors import InputError
from howsparse.experiments.sweep import Job, jobs_of, load_sweep, run_jobs
from howsparse.records import CaseRecord, read_records

SWEEP = """
tasks:
  - {task: digits, recipe: {epochs: EPOCHS}}
methods: [dense, random, "lottery_ticket:fraction=0.6"]
sparsities: [0.5, 0.75]
seeds: 2
"""


def jobs(folder: Path, epochs: int = 2) -> list[Job]:
    file = folder / "sweep.yaml"
    file.write_text(SWEEP.replace("EPOCHS", str(epochs)))
    return jobs_of(load_sweep(file), folder / "runs.jsonl", folder / "runs")


def names(records: list[CaseRecord]) -> Counter[tuple[str, object, int]]:
    return Counter((r.key.method, r.key.target, r.key.seed) for r in records)


def recorded(folder: Path) -> list[CaseRecord]:
    return read_records(CaseRecord, ("method", "run"), folder / "runs.jsonl")


def test_every_run_once_and_a_second_sweep_runs_none(tmp_path: Path) -> None:
    wanted = jobs(tmp_path)
    assert len(wanted) == 10  # dense once for both sparsities
    first = list(run_jobs(wanted))
    assert names(first) == Counter((j.case.method, j.case.target, j.case.seed) for j in wanted)
    written = (tmp_path / "runs.jsonl").read_bytes()
    again = list(run_jobs(wanted))
    assert (tmp_path / "runs.jsonl").read_bytes() == written
    assert sorted(map(str, again)) == sorted(map(str, recorded(tmp_path)))


def test_two_processes_give_the_records_of_one(tmp_path: Path) -> None:
    for workers in (1, 2):
        (tmp_path / str(workers)).mkdir()
        list(run_jobs(jobs(tmp_path / str(workers)), workers))
    one, two = (recorded(tmp_path / str(workers)) for workers in (1, 2))
    assert names(one) == names(two)
    same = {"key", "accuracy", "loss", "sparsity", "epochs"}
    assert sorted(str(r.model_dump(include=same)) for r in one) == sorted(str(r.model_dump(include=same)) for r in two)


def test_a_worker_without_a_job_ends_with_a_killed_sweep(tmp_path: Path) -> None:
    """One of two workers has the only job; the sweep is killed after it, and all its processes close the pipe."""
    jobs(tmp_path, epochs=1)
    code = "import os, signal; from pathlib import Path; from howsparse.experiments.sweep import *; "
    code += "found = jobs_of(load_sweep(Path('sweep.yaml')), Path('runs.jsonl'), Path('runs'))[:1]; "
    code += "[os.kill(os.getpid(), signal.SIGKILL) for record in run_jobs(found, workers=2)]"
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE) as started:
        try:
            assert started.communicate(timeout=120)[0] == b""
        finally:
            started.kill()
    assert len(recorded(tmp_path)) == 1


def test_a_cluster_that_loses_a_worker_loses_no_run(tmp_path: Path) -> None:
    """One of two workers is killed after the first record; nothing is lost, nothing is recorded twice."""
    cluster_module = pytest.importorskip("dask.distributed")
    import dask

    wanted = jobs(tmp_path, epochs=15)
    settings = {"distributed.comm.timeouts.connect": "60s", "distributed.worker.daemon": True}
    with (
        dask.config.set(settings),
        cluster_module.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=tmp_path
        ) as cluster,
    ):
        victim = next(iter(cluster.workers.values()))

        def kill() -> None:
            os.kill(victim.pid, signal.SIGKILL)

        records = []
        for record in run_jobs(wanted, backend="dask", address=cluster.scheduler_address):
            records.append(record)
            if len(records) == 1:
                threading.Thread(target=kill).start()
    expected = Counter((j.case.method, j.case.target, j.case.seed) for j in wanted)
    assert names(records) == expected
    assert names(recorded(tmp_path)) == expected


def test_a_computed_sparsity_gives_records_for_the_tables_and_one_study_of_a_network(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "tasks: [{task: digits, recipe: {epochs: 2}, max_products: 32}]\n"
        "methods: [dense, one_shot, random]\nsparsities: [limit]"
    )
    wanted = jobs_of(load_sweep(file), tmp_path / "runs.jsonl", tmp_path / "runs")
    list(run_jobs(wanted, workers=2))
    records = recorded(tmp_path)
    assert names(records) == Counter({("dense", 0.0, 0): 1, ("one_shot", "limit", 0): 1, ("random", "limit", 0): 1})
    assert {record.kind for record in records} == {"run"}
    # Measured to the clock: had each worker studied the network on its own, these would differ.
    assert len({str(record.study) for record in records}) == 1
    assert list(run_jobs(wanted)) == sorted(records, key=lambda r: [j.case.method for j in wanted].index(r.key.method))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: [", "is not YAML"),
        ("- 1", "field 'the file'"),
        ("{tasks: [], methods: [dense], sparsities: [0.5]}", "field 'tasks'"),
        ("{tasks: [{task: digits}], methods: [dense], sparsities: [half]}", "sparsity 'half' is neither"),
        ("{tasks: [{task: digits}], methods: [dense], sparsities: [1.5]}", "sparsity 1.5 is outside"),
        ("{tasks: [{task: digit}], methods: [dense], sparsities: [0.5]}", "no task is called 'digit'"),
        ("{tasks: [{task: digits}], methods: [magic], sparsities: [0.5]}", "no method is called 'magic'"),
        ("{tasks: [{task: digits}], methods: [dense], sparsities: [0.5], seed: 3}", "field 'seed'"),
        ("{tasks: [{task: digits, recipe: {data: {mena: [0]}}}], methods: [dense], sparsities: [0.5]}", "field 'data'"),
        ("{tasks: [{task: digits, recipe: {schedule: {gama: 1}}}], methods: [dense], sparsities: [0.5]}", "gama"),
        ("{tasks: [{task: 'm:p', recipe: {data: x}}], methods: [dense], sparsities: [0.5]}", "no field 'data'"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_sweep(tmp_path / "sweep.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_that_is_given_twice_is_run_once(tmp_path: Path) -> None:
    tasks = "[{task: digits, recipe: {epochs: 2}}, {task: digits, recipe: {epochs: 2}}, {task: digits}]"
    (tmp_path / "s.yaml").write_text(f"{{tasks: {tasks}, methods: [random, random], sparsities: [0.9, 0.90, '0.9']}}")
    found = jobs_of(load_sweep(tmp_path / "s.yaml"), tmp_path / "runs.jsonl", tmp_path)
    assert [job.entry.recipe for job in found] == [{"epochs": 2}, {}]


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sweep file at"):
        load_sweep(tmp_path / "nowhere.yaml")
