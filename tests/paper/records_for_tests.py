"""Records of runs as `howsparse run` writes them, with numbers that are chosen by hand."""

from typing import Any, Literal

from howsparse.limit.options import LimitOptions
from howsparse.limit.result import LimitSummary
from howsparse.records import CaseKey, CaseRecord, IterationRecord, IterationStep, Provenance, Study
from howsparse.records.origin import Machine
from howsparse.records.types import (
    Curve,
    Curves,
    Histogram,
    PredictedCurve,
    RowNorms,
    ScaledLimits,
    WeightStatistics,
)

MADE = Provenance(
    command="howsparse run fc5-cifar10",
    commit=None,
    machine=Machine(processor="any", cores=1, system="any"),
    versions={},
)


def study(limit: float, upper: tuple[float | None, float | None, float | None]) -> Study:
    """A dense network's study; ``upper`` is the upper bound and the two ends of its bracket."""
    bound, low, high = upper
    return Study(
        answer=LimitSummary(
            limit=limit,
            limit_low=limit - 0.01,
            limit_high=limit + 0.01,
            predicted=0.975,
            products=32,
            upper_bound=bound,
            upper_low=low,
            upper_high=high,
            tolerance=0.1,
        ),
        dense_accuracy=0.6,
        dense_loss=1.0,
        measured=0.985,
        measured_by_accuracy=0.98,
        seconds=1.0,
        curves=Curves(
            train=Curve(sparsity=[0.0, 0.5, 0.9], loss=[1.0, 1.05, 3.0], accuracy=[0.7, 0.65, 0.2]),
            test=Curve(sparsity=[0.0, 0.5, 0.9], loss=[1.1, 1.15, 3.1], accuracy=[0.6, 0.6, 0.3]),
            predicted=PredictedCurve(sparsity=[0.0, 0.5, 1.0], increase=[0.0, 0.04, 4.0]),
        ),
        weights=WeightStatistics(
            histogram=Histogram(counts=[1, 5, 2], low=-0.3, high=0.3),
            density=[0.0, 0.01, 0.5, 1.0],
            squared_radius=[2.0, 1.9, 0.5, 0.0],
        ),
        scaled=ScaledLimits(factor=[1.0, 2.0], limit=[limit, 0.5], limit_low=[0.4, 0.4], limit_high=[0.99, 0.6]),
        rows=RowNorms(percentile=[25.0, 50.0, 75.0], norm=[0.0, 1.0, 2.0]),
        history=[],
    )


def run_record(
    *,
    task: str = "fc5-cifar10",
    seed: int = 0,
    limit: float = 0.97,
    upper: tuple[float | None, float | None, float | None] | None = None,
    epochs: int = 200,
    images: int = 50_000,
    method: str = "one_shot",
    kind: Literal["run", "method"] = "run",
    **result: Any,
) -> CaseRecord:
    """A run of a method; ``result`` are fields of `CaseRecord`."""
    key = CaseKey(
        kind=kind,
        problem=task,
        settings_hash="",
        data="",
        examples=None,
        limit=LimitOptions(),
        method=method,
        target="limit",
        seed=seed,
    )
    found: dict[str, Any] = {"accuracy": 0.59, "sparsity": 0.983} | result
    about = f"{task} {seed} {limit} {epochs} {images} {method}"  # a file holds one record of a hash
    return CaseRecord(
        kind=kind,
        made=MADE,
        key=key,
        hash=about,
        settings={"epochs": epochs},
        train_examples=images,
        study=study(limit, (limit - 0.002, None, None) if upper is None else upper) if kind == "run" else None,
        **found,
    )


def iteration_records() -> list[IterationRecord]:
    """Five steps of the lottery ticket and of Rare Gems, with and without l2."""

    def steps(needed: float) -> list[IterationStep]:
        return [
            IterationStep(density=0.8**k, needed=needed, needed_low=needed - 0.1, needed_high=needed + 0.1, stays=0.8)
            for k in range(5)
        ]

    methods = {"lottery_ticket": 0.4, "rare_gems without l2": 0.3, "rare_gems with l2 0.001": 0.2}
    return [
        IterationRecord(
            made=MADE,
            problem="digits",
            epochs=5,
            seed=0,
            examples=None,
            target=0.95,
            method=method,
            steps=steps(needed),
            accuracy=0.9,
        )
        for method, needed in methods.items()
    ]
