"""Sweeps: runs of problems x methods x sparsities x seeds in several processes or on several machines."""

import os
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
from howsparse.experiments.compare import MOST_SEEDS, Case, case_key, cases, find_record, run_case
from howsparse.experiments.workers import end_with
from howsparse.limit.options import Answer, LimitOptions
from howsparse.loading import check_changes, importing_from_here, load_problem
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
    """The contents of a sweep's YAML file.

    If a sparsity is "limit" or "predicted", the records also contain the study of the dense network, which the paper's
    tables need.

    Attributes:
        tasks: the problems to train.
        methods: names of methods, with options after a colon.
        sparsities: fractions, "limit" or "predicted".
        seeds: number of runs of each, from seed 0 on.

    >>> Sweep.model_validate({"tasks": [{"task": "digits"}], "methods": ["random"], "sparsities": [0.9]}).seeds
    1
    """

    tasks: list[ProblemEntry] = Field(min_length=1, description="what to train")
    methods: list[str] = Field(min_length=1, description="names, with options after a colon")
    sparsities: list[float | str] = Field(min_length=1, description="to prune to: fractions, or limit, predicted")
    seeds: int = Field(default=1, ge=1, le=MOST_SEEDS, description="runs of each, from seed 0 on")

    @property
    def whole(self) -> bool:
        """Whether a sparsity is computed."""
        return any(isinstance(parse_sparsity(sparsity), Answer) for sparsity in self.sparsities)


@dataclass(frozen=True)
class Job:
    """One run, with all data that a process on another machine needs for it.

    Attributes:
        entry: the problem, as the sweep's file describes it.
        case: method, sparsity and seed.
        whole: whether the record also has the study of the dense network.
        record: JSON-lines file of the runs.
        folder: folder in which trainings, limits and studies are stored.
        command: command for the record.

    >>> sweep = Sweep.model_validate({"tasks": [{"task": "digits"}], "methods": ["random"], "sparsities": [0.9]})
    >>> job = jobs_of(sweep, Path("runs.jsonl"), Path("runs"))[0]
    >>> job.entry.task, job.case
    ('digits', Case(method='random', target=0.9, seed=0))
    """

    entry: ProblemEntry
    case: Case
    whole: bool
    record: Path
    folder: Path
    command: str

    def run(self) -> Run:
        """The settings of the run.

        Returns:
            Folder, number of examples, and options of limits.
        """
        return Run(self.folder, self.entry.images, LimitOptions(max_products=self.entry.max_products))


def load_sweep(path: Path) -> Sweep:
    r"""Read and check a sweep's file.

    Args:
        path: path of the YAML file.

    Returns:
        The contents, with defaults for the fields that the file leaves out.

    Raises:
        InputError: the file does not exist or is not YAML, or a field, task, method or sparsity is not valid.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "sweep.yaml")
    ...     _ = file.write_text("tasks: [{task: digits}]\nmethods: [random]\nsparsities: [0.9]\nseeds: 2")
    ...     sweep = load_sweep(file)
    ...     len(jobs_of(sweep, Path(folder, "runs.jsonl"), Path(folder, "runs")))
    2
    """
    if not path.is_file():
        raise InputError(f"no sweep file at {path}; correct the path")
    try:
        sweep = Sweep.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path}, field '{where}': {first['msg']}; correct it") from error
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:  # ValueError: a character that none is
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}; correct it") from error
    for entry in sweep.tasks:
        if ":" in entry.task:
            check_changes(entry.task, entry.recipe)
        else:
            change_recipe(load_recipe(entry.task), entry.recipe)
    cases(sweep.methods, sweep.sparsities, sweep.seeds)
    return sweep


def jobs_of(sweep: Sweep, record: Path, folder: Path) -> list[Job]:
    """List all runs of a sweep, each once. Paths become absolute, because processes may start in other folders.

    Args:
        sweep: the contents of the sweep's file.
        record: JSON-lines file of the runs.
        folder: folder in which trainings, limits and studies are stored.

    Returns:
        The jobs, ordered by problem, then as `cases` lists them.

    >>> fields = {"tasks": [{"task": "digits"}], "methods": ["dense", "random"], "sparsities": [0.5, 0.9], "seeds": 2}
    >>> jobs = jobs_of(Sweep.model_validate(fields), Path("runs.jsonl"), Path("runs"))
    >>> len(jobs)  # for each of two seeds: one of the dense network, and "random" at two sparsities
    6
    """
    found, command = cases(sweep.methods, sweep.sparsities, sweep.seeds), provenance().command
    where = record.resolve(), folder.resolve()
    entries = [entry for place, entry in enumerate(sweep.tasks) if entry not in sweep.tasks[:place]]
    return [Job(entry, case, sweep.whole, *where, command) for entry in entries for case in found]


def run_jobs(
    jobs: list[Job], workers: int = 1, backend: Backend = "loky", address: str | None = None
) -> Iterator[CaseRecord]:
    """Run the jobs, and yield each record when its run ends.

    Every worker reads the file of records before it starts a run, and appends to it after the run. After an
    interruption, the same call therefore runs only the remaining jobs, and stopped trainings continue from their
    checkpoints. Several machines must share the disk with the file and the folder.

    Args:
        jobs: the runs.
        workers: number of processes on this machine; a cluster uses all its workers.
        backend: "loky" for processes on this machine, or a "dask" or "ray" cluster.
        address: address of the cluster's scheduler; by default dask and ray start one on this machine.

    Yields:
        The records; their order may differ from that of ``jobs``.

    Raises:
        InputError: the backend's package is missing, or a worker on this machine was killed.

    >>> from tempfile import TemporaryDirectory
    >>> entry = {"task": "digits", "recipe": {"epochs": 1}}
    >>> sweep = Sweep.model_validate({"tasks": [entry], "methods": ["random"], "sparsities": [0.9]})
    >>> with TemporaryDirectory() as folder:
    ...     jobs = jobs_of(sweep, Path(folder, "runs.jsonl"), Path(folder, "runs"))
    ...     [round(record.sparsity, 3) for record in run_jobs(jobs)]
    [0.9]
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())  # loky warns when it replaces a worker that uses too much memory
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        if backend == "dask":
            stack.enter_context(_dask_client(address))
        if backend == "ray":
            _register_ray(address)
        own = {"initializer": end_with, "initargs": (os.getpid(),)} if backend == "loky" else {}
        stack.enter_context(joblib.parallel_config(backend=backend, n_jobs=workers if own else -1, **own))
        as_they_come = "generator_unordered" if backend != "ray" else "list"  # ray's backend cannot return a generator
        runs = joblib.Parallel(return_as=as_they_come)(joblib.delayed(run_job)(job) for job in jobs)
        try:
            yield from runs
        except TerminatedWorkerError as error:
            raise InputError(
                "a worker was killed, possibly because memory was full; run the same command again, with fewer --jobs"
            ) from error


def run_job(job: Job) -> CaseRecord:
    """Run a job and append its record to the file; read the record if the file has it.

    Args:
        job: the run.
    """
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
    """Load the problem of an entry, given as JSON. The cache holds one problem, to limit the memory of a worker."""
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
