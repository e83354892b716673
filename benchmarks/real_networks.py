"""Networks that were not trained for pruning: measured, certified and predicted sparsities, and limits.

    python -m benchmarks.real_networks NETWORK ... --nets FOLDER --cifar10 FOLDER --text FILE --wheel FILE
    python -m benchmarks.real_networks --page

NETWORK: resnet20, resnet32, stories260K, albert, gpt2-shakespeare, vit-cifar10 or gpt2-random. Each study is recorded
in results/real_networks.jsonl as it ends, and is not run again. With --page, docs/real-networks.md is written from the
records. Two cores need about two hours for all.
"""

import argparse
import copy
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.commands import own_command
from benchmarks.real_networks_cases import CASES, NO_DROPOUT, Case, Sources
from benchmarks.real_networks_page import page
from howsparse import audit, certify, magnitude_mask, measure, predict, pruning_limit
from howsparse.errors import InputError
from howsparse.files import write_whole
from howsparse.geometry import effective_sparsity
from howsparse.limit.assess import check_mask
from howsparse.limit.certify import candidates_around
from howsparse.limit.goal import Goal
from howsparse.limit.measure import measure_goals
from howsparse.pruning.orders import ORDERS, rank
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.risk.batches import FirstExamples
from howsparse.risk.evaluate import evaluate
from howsparse.risk.weights import select_weights

DROPS = (0.005, 0.01, 0.02)
PREDICTED = 500  # examples of the prediction
Study = Callable[[Case, dict[str, Any]], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    for name in ("nets", "cifar10", "text", "wheel"):
        parser.add_argument(f"--{name}", type=Path, default=Path("none"))
    parser.add_argument("--folder", type=Path, default=Path("runs/real-networks"), help="for trained weights")
    parser.add_argument("--record", type=Path, default=Path("results/real_networks.jsonl"))
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    sources = Sources(options.nets, options.cifar10, options.text, options.wheel, options.folder)
    sources.folder.mkdir(parents=True, exist_ok=True)
    for network in options.networks:
        random = network == "gpt2-random"
        for study, found in gpt2_random(options.record) if random else run(network, sources, options.record):
            made, named = provenance(own_command("benchmarks.real_networks")), {"network": network, "study": study}
            append_record(Measurement(kind="real_network", made=made, **named, **found), options.record)
            print(f"{network}, {study}: {found['seconds']} s", file=sys.stderr)
    if options.page:
        write_whole(Path("docs/real-networks.md"), lambda file: file.write_text(page(list(read_lines(options.record)))))


def run(network: str, sources: Sources, record: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The studies of one network that are not recorded yet."""
    case = CASES[network](sources)
    studies: dict[str, Study] = {"network": about, "prediction": prediction}
    studies |= {f"order {order}": of_order(order) for order in ORDERS}
    studies |= {
        "certificate magnitude": certificate("magnitude"),
        "certificate best": certificate("best"),
        "limit": limit,
        "audits": audits,
    }
    for name, study in studies.items():
        lines = [line for line in read_lines(record) if line.get("network") == network]
        done = {line["study"]: line for line in lines}
        if name not in done:
            began = time.perf_counter()
            found = study(case, done)
            yield name, found | {"seconds": round(time.perf_counter() - began, 1)}


def about(case: Case, done: dict[str, Any]) -> dict[str, Any]:
    """The network before pruning, and at the sparsity of the baseline without data."""
    weights = select_weights(case.model, None)
    baseline = effective_sparsity(torch.cat([w.detach().flatten() for w in weights.values()]).numpy())
    loss, accuracy = evaluate(case.model, case.choose)
    at_baseline = check_mask(case.model, magnitude_mask(case.model, baseline), case.choose)
    return {
        "weights": sum(w.numel() for w in weights.values()),
        "split": case.split,
        "loss": loss,
        "accuracy": accuracy,
        "baseline": baseline,
        "baseline_accuracy": at_baseline.accuracy,
    }


def of_order(order: str) -> Study:
    """The measured sparsity of an order for each drop."""

    def study(case: Case, done: dict[str, Any]) -> dict[str, Any]:
        try:
            ranked = rank(case.model, order, case.calibration)
        except InputError as error:
            return {"refused": str(error)}
        found = measure_goals(case.model, case.choose, [Goal(max_drop=drop) for drop in DROPS], order=ranked)
        return {
            "note": ranked.note,
            "measured": [each.sparsity for each in found],
            "curve": [asdict(point) for point in found[0].curve],
        }

    return study


def certificate(order: str) -> Study:
    """What is certified for one point and 95 %, by the order that is best on the data that choose."""

    def study(case: Case, done: dict[str, Any]) -> dict[str, Any]:
        orders = {key.removeprefix("order "): line for key, line in done.items() if key.startswith("order ")}
        reached = {key: line["measured"][1] for key, line in orders.items() if "measured" in line}
        name = max(reached, key=lambda each: reached[each]) if order == "best" else order
        ranked = rank(case.model, name, case.calibration)
        candidates = candidates_around(reached[name])
        found = certify(
            case.model, case.held_out, max_drop=0.01, order=ranked, candidates=candidates, chosen_on=case.choose
        )
        return found.summary() | {"measured": reached[name]}

    return study


def prediction(case: Case, done: dict[str, Any]) -> dict[str, Any]:
    """The prediction on the calibration data, and what is measured there for the same tolerance."""
    part = [*FirstExamples(case.calibration, PREDICTED)]
    began = time.perf_counter()
    found = predict(case.model, part)
    middle = time.perf_counter()
    measured = measure(case.model, part, tolerance=found.tolerance)
    return {
        "predicted": found.sparsity,
        "tolerance": found.tolerance,
        "rise": found.checked_rise,
        "holds": found.holds,
        "curvature": found.curvature,
        "products": found.num_products,
        "predict_seconds": round(middle - began, 1),
        "measured": measured.sparsity,
        "measure_seconds": round(time.perf_counter() - middle, 1),
    }


def limit(case: Case, done: dict[str, Any]) -> dict[str, Any]:
    """The limit from a few products over some of the calibration data."""
    part = FirstExamples(case.calibration, case.limit_examples)
    found = pruning_limit(case.model, part, curvature="ggn", max_products=case.max_products)
    more = found.outlook()
    summary = found.summary()
    return asdict(summary) | {
        "examples": case.limit_examples,
        "outlook": None if more is None else str(more),
        "binding": [asdict(layer) for layer in sorted(found.layers, key=lambda each: -each.cost)[:3]],
    }


def audits(case: Case, done: dict[str, Any]) -> dict[str, Any]:
    """20 times, one layer is damaged and all others are rounded to 8 bits: how often the audit finds the layer.

    A damage that does not raise the loss by 0.02 is drawn again.
    """
    batches = [*FirstExamples(case.calibration, 64)]
    weights = {name: w.detach() for name, w in select_weights(case.model, None).items()}
    generator = torch.Generator().manual_seed(0)
    dense = evaluate(case.model, batches)[0]
    trials: list[dict[str, Any]] = []
    for attempt in range(200):
        name = list(weights)[int(torch.randint(len(weights), (), generator=generator))]
        kind = list(DAMAGES)[attempt % len(DAMAGES)]
        changed = {other: rounded(w, 8) for other, w in weights.items()}
        changed[name] = DAMAGES[kind](weights[name], generator)
        alone = copy.deepcopy(case.model)
        alone.load_state_dict({name: changed[name]}, strict=False)
        rise = evaluate(alone, batches)[0] - dense
        if rise >= 0.02:
            found = audit(case.model, changed, batches)
            local = max(found.layers, key=lambda layer: layer.predicted).name
            shares = {"predicted": found.predicted, "path": found.path, "measured": found.measured}
            trials.append({"layer": name, "damage": kind, "worst": found.worst.name, "worst_local": local, **shares})
        if len(trials) == 20:
            break
    return {
        "trials": trials,
        "found": sum(trial["worst"] == trial["layer"] for trial in trials),
        "found_locally": sum(trial["worst_local"] == trial["layer"] for trial in trials),
    }


def rounded(weight: Tensor, bits: int) -> Tensor:
    unit = weight.abs().max() / (2 ** (bits - 1) - 1)
    return weight.div(unit).round().mul(unit)


def noisy(weight: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(weight.shape, generator=generator)
    return weight.add(noise * (weight.norm() / noise.norm()))


DAMAGES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "noise of the weights' norm": noisy,
    "rounded to 2 bits": lambda w, generator: rounded(w, 2),
    "rounded to 3 bits": lambda w, generator: rounded(w, 3),
    "three times as large": lambda w, generator: 3 * w,
    "a fifth as large": lambda w, generator: w / 5,
}


def gpt2_random(record: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """GPT-2 small with random weights: 124 million weights are measured and audited."""
    import transformers as hub

    if any(line.get("network") == "gpt2-random" for line in read_lines(record)):
        return
    torch.manual_seed(0)
    model = hub.GPT2LMHeadModel(hub.GPT2Config(**NO_DROPOUT)).eval()
    ids = torch.randint(50257, (8, 64), generator=torch.Generator().manual_seed(1))
    batches = [{"input_ids": part, "labels": part} for part in ids.split(2)]
    began = time.perf_counter()
    measured = measure(model, batches, max_rise=0.001, scan=(0.5, 0.9), precision=0.05)
    middle = time.perf_counter()
    found = audit(model, magnitude_mask(model, 0.3), batches, points=0)
    yield (
        "measured and audited",
        {
            "weights": sum(w.numel() for w in select_weights(model, None).values()),
            "measured": measured.sparsity,
            "measure_seconds": round(middle - began, 1),
            "predicted_rise": found.predicted,
            "measured_rise": found.measured,
            "worst": found.worst.name,
            "audit_seconds": round(time.perf_counter() - middle, 1),
            "seconds": round(time.perf_counter() - began, 1),
            "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1),
        },
    )


if __name__ == "__main__":
    main()
