"""Which curvature predicts best how far magnitude pruning gets?

    python -m benchmarks.predictors [--seeds 3] [--record results/predictors.jsonl] [--table docs/predictors.md]

Trains a 64-64-32-10 ReLU network and a small convnet with BatchNorm on digits: with five strengths of l1, with weight
decay, and with neither. Compares every prediction with the measured sparsity, up to which the training loss stays
within the tolerance. Recorded runs are not run again. The records of `howsparse limit fc5-cifar10` in
results/limit.jsonl are added to the page.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import howsparse
from benchmarks.problems import train_dense, train_images
from howsparse.files import write_whole
from howsparse.limit.measure import FINE
from howsparse.records import AnswerRecord, Measurement, append_record, provenance, read_lines, read_records
from howsparse.risk import evaluate
from howsparse.tasks import load_task
from howsparse.tasks.data import Batches

REGIMES = [(3e-3, 0.0), (1e-3, 0.0), (3e-4, 0.0), (1e-4, 0.0), (3e-5, 0.0), (0.0, 5e-4), (0.0, 0.0)]
PREDICTORS = {
    "wall": "limit, absolute H",
    "unbounded": "limit, clipped H",
    "ggn": "limit, GGN",
    "predicted": "predicted, H",
    "predicted_ggn": "predicted, GGN",
}

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--record", type=Path, default=Path("results/predictors.jsonl"))
    parser.add_argument("--table", type=Path, default=Path("docs/predictors.md"))
    options = parser.parse_args()
    done = {(r["task"], r["l1"], r["weight_decay"], r["seed"]) for r in read_lines(options.record)}
    for name in ("digits", "digits-convnet"):
        for seed in range(options.seeds):
            for l1, decay in REGIMES:
                if (name, l1, decay, seed) not in done:
                    made = provenance("python -m benchmarks.predictors")
                    found = one_network(name, l1, decay, seed)
                    append_record(Measurement(kind="predictors", made=made, **found), options.record)
    write_whole(options.table, lambda file: file.write_text(table(read_lines(options.record) + fc5_records())))
    print(options.table.read_text())


def one_network(name: str, l1: float, decay: float, seed: int) -> Record:
    """Train one network and make every prediction for it."""
    problem = load_task(name, l1=l1, weight_decay=decay)
    model, batches = train_dense(problem, seed), Batches(train_images(problem), 128)
    hessian = howsparse.pruning_limit(model, batches, seed=seed)
    ggn = howsparse.pruning_limit(model, batches, curvature="ggn", seed=seed)
    measured = howsparse.measure(model, batches, tolerance=hessian.tolerance, scan=FINE, precision=0.001)
    print(f"{name} l1 {l1:g} seed {seed}: measured {measured.sparsity:.4f}", file=sys.stderr)
    return {
        "task": name,
        "l1": l1,
        "weight_decay": decay,
        "seed": seed,
        "dense_accuracy": evaluate(model, problem.test)[1],
        "tolerance": hessian.tolerance,
        "measured": measured.sparsity,
        "wall": hessian.errors.middle,
        "wall_bracket": hessian.bracket,
        "unbounded": hessian.at(negative="unbounded").errors.middle,
        "ggn": ggn.errors.middle,
        "predicted": hessian.predicted,
        "predicted_ggn": ggn.predicted,
    }


def fc5_records() -> list[Record]:
    """FC5's predictions, gathered from the records of its limits."""
    records = read_records(AnswerRecord, ("limit",), Path("results/limit.jsonl"))
    by_curvature = {r.answer["curvature"]: r.answer for r in records if r.model == "fc5-cifar10"}
    if not {"hessian", "ggn"} <= by_curvature.keys():
        return []
    hessian, ggn = by_curvature["hessian"], by_curvature["ggn"]
    return [
        {
            "task": "fc5-cifar10",
            "l1": 5e-5,
            "weight_decay": 0.0,
            "measured": hessian["measured"],
            "wall": hessian["limit"],
            "unbounded": hessian["limit_unbounded"],
            "ggn": ggn["limit"],
            "predicted": hessian["predicted"],
            "predicted_ggn": ggn["predicted"],
        }
    ]


def table(records: list[Record]) -> str:
    """The page in docs: predictions by regime, then mean and worst error of each."""
    head = ["", "| network | training | networks | measured | " + " | ".join(PREDICTORS.values()) + " |"]
    lines = [
        "# Which curvature predicts best?",
        "",
        "This page compares predictions and limits with measured sparsities, for several kinds of training. It is for",
        "readers who want to know which number is close to the truth. Made by `python -m benchmarks.predictors`;",
        "`results/predictors.jsonl` has one line for each network, and FC5's numbers are in `results/limit.jsonl`. All",
        "numbers are sparsities, as fractions and as means over the seeds.",
        "",
        "- *measured*: the largest sparsity at which the training loss stays within its tolerance, when the smallest",
        "  weights are removed.",
        "- *limit*: 1 - T, with the absolute eigenvalues of the Hessian H, with its positive eigenvalues only",
        "  (clipped), or with the Gauss-Newton matrix (GGN).",
        "- *predicted*: the largest sparsity at which the local model g'd + ½d'Hd stays within the tolerance, with the",
        "  Hessian or with the GGN.",
        *head,
        "|---" * (4 + len(PREDICTORS)) + "|",
    ]
    for key in dict.fromkeys((r["task"], r["l1"], r["weight_decay"]) for r in records):
        cases = [r for r in records if (r["task"], r["l1"], r["weight_decay"]) == key]
        task, l1, decay = key
        how = f"l1 {l1:g}" if l1 else f"weight decay {decay:g}" if decay else "neither"
        values = [np.mean([r[name] for r in cases]) for name in ("measured", *PREDICTORS)]
        lines.append(f"| {task} | {how} | {len(cases)} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    lines += [
        "",
        "The next table has the distance from the measured sparsity, as mean and worst case over the networks:",
        "",
        "| prediction | all: mean, worst | with l1 of 3e-4 and more (FC5: 5e-5): mean, worst |",
        "|---|---|---|",
    ]
    for name, words in PREDICTORS.items():
        spread = [errors([r for r in records if keep(r)], name) for keep in (lambda r: True, strongly_regularised)]
        lines.append(f"| {words} | {spread[0]} | {spread[1]} |")
    return "\n".join(lines) + "\n"


def strongly_regularised(record: Record) -> bool:
    return bool(record["l1"] >= 3e-4 or record["task"] == "fc5-cifar10")


def errors(records: list[Record], name: str) -> str:
    gaps = np.abs([r[name] - r["measured"] for r in records])
    return f"{gaps.mean():.3f}, {gaps.max():.3f}" if gaps.size else "-"


if __name__ == "__main__":
    main()
