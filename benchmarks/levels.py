"""Limits over all examples by nested samples, beside the authors' procedure and a reference over all examples.

    python -m benchmarks.levels fc5-cifar10 WEIGHTS [WEIGHTS ...] --data FOLDER_OR_HUB_NAME
        [--sample 1000] [--precision 0.005] [--reference 400] [--keep FOLDER]
        [--record results/levels.jsonl] [--page docs/levels.md]
    python -m benchmarks.levels small [--networks 30]

For each network: the bracket that `pruning_limit` gives and its seconds; the seconds of the bracket's part alone,
from the same products and vector work; the authors' 128 products over all examples, scaled from products that are
timed in the same process with the same matrix kernels; and the middle of the bracket after ``--reference`` products
over all examples. The reference's products are kept in ``--keep``, so that a run that was stopped goes on.
``--reference 0`` leaves it out. ``small`` takes random small networks whose exact limit is known. ``--examples``
takes only the first examples of the training data, as a population of its own.
"""

import argparse
import textwrap
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

import howsparse
from benchmarks import peers
from benchmarks.commands import own_command
from benchmarks.kept_spectra import kept_spectrum, probed_spectrum
from benchmarks.levels_small import small_case, small_results
from benchmarks.limit_costs import STEPS
from benchmarks.product import interleaved, with_onednn
from howsparse.files import write_whole
from howsparse.geometry import Magnitudes, absolute_filter
from howsparse.limit.bracket import solve_bracket
from howsparse.limit.result import PruningLimit
from howsparse.loading import load_weights
from howsparse.problem import Problem
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.risk import EmpiricalRisk, Hessian
from howsparse.tasks import load_task

TIMED = 4000  # examples of the products that are timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("weights", type=Path, nargs="*")
    parser.add_argument("--data", default=None)
    parser.add_argument("--sample", type=int, default=1000)
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--precision", type=float, default=0.005)
    parser.add_argument("--products", type=int, default=400)
    parser.add_argument("--examples", type=int, default=None)
    parser.add_argument("--reference", type=int, default=400)
    parser.add_argument("--keep", type=Path, default=None)
    parser.add_argument("--record", type=Path, default=Path("results/levels.jsonl"))
    parser.add_argument("--page", type=Path, default=Path("docs/levels.md"))
    options = parser.parse_args()
    if options.task == "small":
        cases = [small_case(seed) for seed in range(options.networks)]
        record("levels_small", small_results(cases), options.record)
    else:
        problem = load_task(options.task, options.data)
        for weights in options.weights:
            model = problem.initial()
            load_weights(model, weights)
            found = study(problem, model, options) | {"task": options.task, "network": weights.stem}
            record("levels", found, options.record)
    write_whole(options.page, lambda file: file.write_text(page(read_lines(options.record))))
    print(options.page.read_text())


def record(kind: str, found: dict[str, Any], file: Path) -> None:
    append_record(Measurement(kind=kind, made=provenance(own_command("benchmarks.levels")), **found), file)


def study(problem: Problem, model: nn.Module, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is recorded of one network."""
    batches = list(problem.study_batches(options.examples))
    began, stages = time.perf_counter(), _Stages()
    limit = howsparse.pruning_limit(
        model,
        batches,
        sample=options.sample,
        precision=options.precision,
        max_products=options.products,
        progress=stages,
    )
    seconds = time.perf_counter() - began
    found = bracket_numbers(limit) | {"seconds": seconds, "seconds_by_stage": stages.seconds()}
    risk = EmpiricalRisk(model, batches)
    found |= {"examples": risk.num_examples} | product_seconds(problem, model, risk.num_examples)
    if options.reference:
        found |= reference(Hessian(risk), limit, options.reference, options.keep)
    return found


def bracket_numbers(limit: PruningLimit) -> dict[str, Any]:
    """The bracket, its half-widths, and the samples with their steps."""
    errors = limit.errors
    levels = [] if limit.sampling is None else [(lv.examples, lv.spectrum.num_steps) for lv in limit.sampling.levels]
    base = limit.spectrum.num_steps if limit.sampling is None else (limit.sampling.examples, limit.spectrum.num_steps)
    return {
        "tolerance": limit.tolerance,
        "low": errors.low,
        "high": errors.high,
        "quadrature": errors.quadrature,
        "probe": errors.probe,
        "data": errors.data,
        "rounding": errors.rounding,
        "stopped": limit.stopped,
        "products": limit.num_products,
        "base": base,
        "levels": levels,
    }


class _Stages:
    """Seconds from each stage's first report of progress to the next stage's; the bracket's stages are the samples."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._began.setdefault(stage, time.perf_counter())

    def seconds(self) -> dict[str, float]:
        """A stage's first step is counted to the stage before it."""
        ends = [*self._began.values(), time.perf_counter()]
        return {name: b - a for name, a, b in zip(self._began, ends, ends[1:], strict=False)}


def product_seconds(problem: Problem, model: nn.Module, examples: int) -> dict[str, float]:
    """Seconds of the authors' products over all examples, by torch's own kernels and by ours, scaled from some."""
    batches = list(problem.study_batches(min(TIMED, examples)))
    risk = EmpiricalRisk(model, batches)
    vector = torch.randn(risk.num_weights, generator=torch.Generator().manual_seed(0))
    theirs = partial(peers.double_backward(peers.subject(model, risk.names), batches), vector)
    ours = partial(Hessian(risk).__matmul__, vector)
    seconds = interleaved({"ours": ours, "authors": theirs, "authors_onednn": with_onednn(theirs)}, 5)
    scale = examples / risk.num_examples
    return {
        "product": scale * seconds["ours"],
        "authors": STEPS * scale * seconds["authors"],
        "authors_by_onednn": STEPS * scale * seconds["authors_onednn"],
    }


def reference(operator: Hessian, limit: PruningLimit, steps: int, keep: Path | None) -> dict[str, Any]:
    """The bracket after many products over all examples, for the same tolerance and probe."""
    flat = operator.risk.flat_weights()
    inputs: dict[str, object] = {"weights": flat, "examples": operator.risk.num_examples, "steps": steps}
    compute = partial(probed_spectrum, like=flat, seed=0, steps=steps, name="reference")
    spectrum = kept_spectrum(keep, operator, inputs, compute)
    errors = solve_bracket(spectrum, Magnitudes(flat.numpy()), limit.tolerance, absolute_filter)
    inside = limit.errors.low <= errors.middle <= limit.errors.high
    return {"reference": errors.middle, "reference_low": errors.low, "reference_high": errors.high, "inside": inside}


def page(records: list[dict[str, Any]]) -> str:
    """The page in docs: a row for each network."""
    lines = [
        "# Limits over many examples",
        "",
        "This page is about limits of networks with very many examples. `howsparse limit --sample N` computes them",
        "from nested samples: many products over few examples, and few products over many",
        "([how](theory.md#the-bracket)). Made by `python -m benchmarks.levels`; the records are in",
        "`results/levels.jsonl`.",
        "",
        *[line for r in records if r["kind"] == "levels_small" for line in (_small(r), "")],
        "In the table, *half-widths* are the parts of the bracket for quadrature, probe and data. *Reference* is the",
        "limit from products over all examples, and *inside* says whether the bracket holds it; both are empty if it",
        "was not computed. *Seconds* has the time of the whole limit and of its bracket alone. *Authors* has the",
        "seconds of the 128 products over all examples that the paper's authors take, with the same matrix kernels.",
        "*Samples* lists examples x Lanczos steps. Rows with 8,000 examples take the first 8,000 training images as a",
        "population of their own, because a reference over all 50,000 takes hours here.",
        "",
        "| network | examples | bracket | half-widths | reference | inside | seconds | authors | samples |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = [r for r in records if r["kind"] == "levels"]
    return "\n".join([*lines, *map(_row, rows), "", *_checked([r for r in rows if "reference" in r])]) + "\n"


def _checked(rows: list[dict[str, Any]]) -> list[str]:
    """How the networks with a reference came out, in a sentence."""
    if not rows:
        return []
    off = [abs(r["low"] + r["high"] - 2 * r["reference"]) / (r["high"] - r["low"]) for r in rows]
    halves = [(r["high"] - r["low"]) / 2 for r in rows]
    text = (
        f"Of these networks, {len(rows)} have a reference, and the bracket holds it for"
        f" {sum(r['inside'] for r in rows)} of them. The middle of the bracket is off by {100 * median(off):.0f} % of"
        f" the half-width in the median, and by {100 * max(off):.0f} % at most. The half-widths go from"
        f" {min(halves):.3f} to {max(halves):.3f}: networks that few products do not resolve get wide brackets,"
        " which are easy to hold."
    )
    return [textwrap.fill(text, 118)]


def _small(r: dict[str, Any]) -> str:
    parts = ("quadrature", "probe", "data")
    shares = [case["data"] / total for case in r["cases"] if (total := sum(case[part] for part in parts)) > 0]
    text = (
        f"On {r['networks']} random small networks ({r['examples']:,} digits, samples of 32 or 64), the bracket held"
        f" the exact limit over all images {r['held']} times. The mean half-width was {r['half_width']:.3f}, and in"
        f" the median {100 * median(shares):.0f} % of it came from the data. The root mean square error of the middle"
        f" was {r['error']:.3f}. For the bracket from the second smallest sample alone it was"
        f" {r['error_of_base']:.3f}. The estimated error of the data is larger than it had to be:"
        f" {r['needed_of_fitted']:.2f} of it would have been enough for 95 % of one half of the networks, and"
        f" {r['needed_of_others']:.2f} for 95 % of the other half."
    )
    return textwrap.fill(text, 118)


def _row(r: dict[str, Any]) -> str:
    halves = " + ".join(f"{r[name]:.4f}" for name in ("quadrature", "probe", "data"))
    samples = sorted([*map(tuple, r["levels"]), tuple(r["base"])] if r["levels"] else [(r["examples"], r["base"])])
    others = ("recoverable", "upper bound", "prediction")
    bracket = sum(taken for stage, taken in r["seconds_by_stage"].items() if stage not in others)
    known = "reference" in r
    return (
        f"| {r['network']} | {r['examples']:,} | {r['low']:.4f} to {r['high']:.4f} | {halves} |"
        f" {format(r['reference'], '.4f') if known else ''} | {('yes' if r['inside'] else 'no') if known else ''} |"
        f" {r['seconds']:.0f}, {bracket:.0f} | {r['authors_by_onednn']:.0f} |"
        f" {', '.join(f'{m:,} x {k}' for m, k in samples)} |"
    )


if __name__ == "__main__":
    main()
