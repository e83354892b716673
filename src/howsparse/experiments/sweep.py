"""Many runs over processes or machines: tasks x methods x sparsities x seeds, none of them twice."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import joblib
import yaml
from joblib.externals.loky.process_executor import TerminatedWorkerError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from howsparse.errors import InputError
from howsparse.experiments.compare import Case, cases, find_record, run_case, run_whole
from howsparse.limit.compute import MAX_PRODUCTS
from howsparse.methods import Run
from howsparse.pruning.masks import check_sparsity
from howsparse.records import append_record, provenance, read_records
from howsparse.tasks import Task, load_recipe, load_task

__all__ = ["Backend", "Job", "Sweep", "jobs_of", "load_sweep", "run_jobs"]

Backend = Literal["loky", "dask", "ray"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskEntry(_Strict):
    task: str = Field(description="name of a task")
    data: str | None = Field(default=None, description="hub name or folder, instead of the recipe's")
    recipe: dict[str, Any] = Field(default={}, description="fields of the recipe to change, such as epochs")
    images: int | None = Field(default=None, ge=1, description="training images for limits; all unless given")
    max_products: int = Field(default=MAX_PRODUCTS, ge=32, description="curvature products of a limit")


class Sweep(_Strict):
    """What a sweep's YAML file says.

    Where a sparsity is computed, the dense network is studied whole, and the records are the paper's tables'.
    """

    tasks: list[TaskEntry] = Field(min_length=1, description="what to train")
    methods: list[str] = Field(min_length=1, description="names, with options after a colon")
    sparsities: list[float | Literal["limit", "certified"]] = Field(min_length=1, description="to prune to")
    seeds: int = Field(default=1, ge=1, description="runs of each, from seed 0 on")

    @property
    def whole(self) -> bool:
        return any(isinstance(sparsity, str) for sparsity in self.sparsities)


@dataclass(frozen=True)
class Job:
    """One run, with all that a process elsewhere needs to do it."""

    entry: TaskEntry
    case: Case
    whole: bool
    record: Path
    folder: Path
    command: str

    def run(self) -> Run:
        return Run(self.folder / f"compare-{self.entry.task}", self.entry.images, self.entry.max_products)


def load_sweep(path: Path) -> Sweep:
    """Read and check a sweep's file.

    Raises:
        InputError: no such file, not YAML, or a field, task, method or sparsity that does not validate.
    """
    if not path.is_file():
        raise InputError(f"no sweep file at {path}")
    try:
        sweep = Sweep.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path}, field '{where}': {first['msg']}") from error
    for entry in sweep.tasks:
        load_recipe(entry.task)
    for sparsity in sweep.sparsities:
        if not isinstance(sparsity, str):
            check_sparsity(sparsity)
    cases(sweep.methods, sweep.sparsities, sweep.seeds)
    return sweep


def jobs_of(sweep: Sweep, record: Path, folder: Path) -> list[Job]:
    """Every run of a sweep; paths are made absolute, for processes that start elsewhere."""
    found, command = cases(sweep.methods, sweep.sparsities, sweep.seeds), str(provenance()["command"])
    where = record.resolve(), folder.resolve()
    return [Job(entry, case, sweep.whole, *where, command) for entry in sweep.tasks for case in found]


def run_jobs(
    jobs: list[Job], workers: int = 1, backend: Backend = "loky", address: str | None = None
) -> Iterator[dict[str, Any]]:
    """Run the jobs and yield their records as they come.

    Every worker looks into the file of records before it starts a run and appends to it when it is done, so that a
    sweep that was stopped, or lost a worker, goes on where it was; trainings that were stopped go on from their
    checkpoints. On several machines, file and folder must be on a disk that they share.

    Args:
        jobs: what to run.
        workers: processes at a time; a cluster decides for itself.
        backend: "loky" for processes on this machine, or a "dask" or "ray" cluster.
        address: of the cluster's scheduler; dask and ray start one here unless given.

    Raises:
        InputError: the backend's package is missing, or a worker of this machine was killed.
    """
    with ExitStack() as stack:
        if backend == "dask":
            stack.enter_context(_dask_client(address))
        if backend == "ray":
            _register_ray(address)
        stack.enter_context(joblib.parallel_config(backend=backend, n_jobs=workers if backend == "loky" else -1))
        as_they_come = "generator_unordered" if backend != "ray" else "list"  # which is all that ray's backend can
        runs = joblib.Parallel(return_as=as_they_come)(joblib.delayed(run_job)(job) for job in jobs)
        # Renewing a worker that has grown is loky's affair.
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        try:
            yield from runs
        except TerminatedWorkerError as error:
            raise InputError(
                "a worker was killed, perhaps for memory; the same command goes on, with fewer --jobs if need be"
            ) from error


def run_job(job: Job) -> dict[str, Any]:
    """One run's record, from the file if it is there."""
    task = _loaded(job.entry.task, job.entry.data).with_recipe(**job.entry.recipe)
    known = find_record(read_records(job.record), task, job.case, job.run(), "run" if job.whole else "method")
    if known is not None:
        return known
    run = run_whole if job.whole else run_case
    result = run(task, job.case, job.run()) | provenance() | {"command": job.command}
    append_record(result, job.record)
    return result


@cache
def _loaded(task: str, data: str | None) -> Task:
    return load_task(task, data)


def _dask_client(address: str | None) -> Any:
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise InputError("--backend dask needs dask.distributed: pip install 'dask[distributed]'") from error
    return Client(address) if address is not None else Client()  # type: ignore[no-untyped-call]


def _register_ray(address: str | None) -> None:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise InputError(f"--backend ray needs ray: pip install ray ({error})") from error
    ray.init(address=address, ignore_reinit_error=True)
    register_ray()
