"""Many runs over processes or machines: problems x methods x sparsities x seeds, none of them twice."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import joblib
import yaml
from joblib.externals.loky.process_executor import TerminatedWorkerError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from howsparse.errors import InputError
from howsparse.experiments.compare import Case, case_key, cases, find_record, run_case
from howsparse.limit.options import Answer, LimitOptions
from howsparse.loading import importing_from_here, load_problem
from howsparse.methods import Run
from howsparse.methods.stages import parse_sparsity
from howsparse.problem import Problem
from howsparse.records import CaseRecord, append_record, provenance, read_records
from howsparse.tasks import load_recipe
from howsparse.tasks.recipe import change_recipe

__all__ = ["Backend", "Job", "Sweep", "jobs_of", "load_sweep", "run_jobs"]

Backend = Literal["loky", "dask", "ray"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProblemEntry(_Strict):
    task: str = Field(description="name of a task, or package.module:problem")
    data: str | None = Field(default=None, description="for a task: hub name or folder, instead of the recipe's")
    recipe: dict[str, Any] = Field(default={}, description="fields to change, such as epochs")
    images: int | None = Field(default=None, ge=1, description="training examples for limits; all unless given")
    max_products: int = Field(default=LimitOptions().max_products, ge=32, description="curvature products of a limit")


class Sweep(_Strict):
    """What a sweep's YAML file says.

    Where a sparsity is computed, the dense network is studied whole, and the records are the paper's tables'.
    """

    tasks: list[ProblemEntry] = Field(min_length=1, description="what to train")
    methods: list[str] = Field(min_length=1, description="names, with options after a colon")
    sparsities: list[float | str] = Field(min_length=1, description="to prune to: fractions, or limit, predicted")
    seeds: int = Field(default=1, ge=1, description="runs of each, from seed 0 on")

    @property
    def whole(self) -> bool:
        """Whether a sparsity is computed."""
        return any(isinstance(parse_sparsity(sparsity), Answer) for sparsity in self.sparsities)


@dataclass(frozen=True)
class Job:
    """One run, with all that a process elsewhere needs to do it."""

    entry: ProblemEntry
    case: Case
    whole: bool
    record: Path
    folder: Path
    command: str

    def run(self) -> Run:
        """How the method is run."""
        return Run(self.folder, self.entry.images, LimitOptions(max_products=self.entry.max_products))


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
        if ":" not in entry.task:
            change_recipe(load_recipe(entry.task), entry.recipe)
    cases(sweep.methods, sweep.sparsities, sweep.seeds)
    return sweep


def jobs_of(sweep: Sweep, record: Path, folder: Path) -> list[Job]:
    """Every run of a sweep; paths are made absolute, for processes that start elsewhere."""
    found, command = cases(sweep.methods, sweep.sparsities, sweep.seeds), provenance().command
    where = record.resolve(), folder.resolve()
    return [Job(entry, case, sweep.whole, *where, command) for entry in sweep.tasks for case in found]


def run_jobs(
    jobs: list[Job], workers: int = 1, backend: Backend = "loky", address: str | None = None
) -> Iterator[CaseRecord]:
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
        stack.enter_context(warnings.catch_warnings())  # a worker that has grown is renewed by loky, which says so
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        if backend == "dask":
            stack.enter_context(_dask_client(address))
        if backend == "ray":
            _register_ray(address)
        stack.enter_context(joblib.parallel_config(backend=backend, n_jobs=workers if backend == "loky" else -1))
        as_they_come = "generator_unordered" if backend != "ray" else "list"  # which is all that ray's backend can
        runs = joblib.Parallel(return_as=as_they_come)(joblib.delayed(run_job)(job) for job in jobs)
        try:
            yield from runs
        except TerminatedWorkerError as error:
            raise InputError(
                "a worker was killed, perhaps for memory; the same command goes on, with fewer --jobs if need be"
            ) from error


def run_job(job: Job) -> CaseRecord:
    """One run's record, from the file if it is there."""
    with importing_from_here():
        problem = _loaded(job.entry.model_dump_json())
        key = case_key(problem, job.case, job.run(), "run" if job.whole else "method")
        known = find_record(read_records(CaseRecord, (key.kind,), job.record), key)
        if known is not None:
            return known
        result = run_case(problem, job.case, job.run(), whole=job.whole, command=job.command)
        append_record(result, job.record)
        return result


@lru_cache(maxsize=1)
def _loaded(entry: str) -> Problem:
    """The problem of an entry, given as JSON. A worker holds the data of one problem at a time."""
    wanted = ProblemEntry.model_validate_json(entry)
    return load_problem(wanted.task, wanted.data, **wanted.recipe)


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
