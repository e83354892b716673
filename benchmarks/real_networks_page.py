"""The page that `benchmarks.real_networks` writes."""

from collections.abc import Iterable
from typing import Any

__all__ = ["page"]

Line = dict[str, Any]
Studies = dict[str, Line]

NAMES = {
    "resnet20": "ResNet20, CIFAR-10",
    "resnet32": "ResNet32, CIFAR-10",
    "stories260K": "Llama, 260,000 weights (stories)",
    "albert": "ALBERT of rxnmapper (masked tokens)",
    "gpt2-shakespeare": "GPT-2 shape, characters of Shakespeare",
    "vit-cifar10": "ViT, CIFAR-10",
}
INTRODUCTION = """# Networks not trained for pruning

This page shows all answers for six networks that were trained in the usual way, without an l1 term. It is for readers
who want to know what to expect of a network of their own. The first four were trained by others. The benchmark itself
trained the ViT and the model of GPT-2's shape for some minutes. Nothing is retrained after pruning, and the statistics
of BatchNorm stay as they were.

Made by `python -m benchmarks.real_networks`; the records with command, commit and machine are in
`results/real_networks.jsonl`. The weights and the data are not part of the repository; the benchmark's docstring says
what it reads. All percentages are shares of the prunable weights that are removed, except for the accuracies. The
seconds are those of one thread, on two cores that did other work at the same time.
"""
WORDS = """
- *Measured*: the largest sparsity at which the accuracy on the test data drops by at most one point. The first column
  is for the order magnitude, and the second for the order that is best on these data.
- *Certified*: the largest sparsity for which a drop of at most one point on the population was proved with 95 %
  confidence, for the best order, by held-out examples that were used for nothing else.
- *Predicted* and *measured by loss*: the largest sparsity at which the loss on the calibration data rises by at most
  the default tolerance, by magnitude. The prediction evaluates no mask. *FAILED*: the predicted mask raises the loss by
  more than two tolerances.
- *Limit*: the bracket of the limit from few products over few examples. It is not resolved if it is wider than ten
  points.
- *Baseline*: the sparsity by the effective number of weights, a formula that sees no data, and the accuracy there.

What can be counted over all networks:
"""


def page(records: list[Line]) -> str:
    """The page in docs."""
    found = {name: studies(records, name) for name in NAMES}
    found = {name: each for name, each in found.items() if "network" in each}
    parts = [INTRODUCTION, summary(found), WORDS, findings(found)]
    parts += [network(NAMES[name], each) for name, each in found.items()]
    parts += [random_gpt2(line) for line in records if line.get("network") == "gpt2-random"]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def studies(records: list[Line], name: str) -> Studies:
    return {line["study"]: line for line in records if line.get("network") == name}


def summary(found: dict[str, Studies]) -> str:
    head = (
        "network", "weights", "accuracy", "measured, magnitude", "measured, best order", "certified",
        "predicted", "measured by loss", "limit, bracket", "baseline (accuracy there)",
    )  # fmt: skip
    rows = []
    for name, each in found.items():
        about, best = each["network"], best_order(each)
        rows.append(
            (
                NAMES[name],
                f"{about['weights']:,}",
                percent(about["accuracy"], 2),
                percent(at(each.get("order magnitude"), 1)),
                "-" if best is None else f"{percent(each[f'order {best}']['measured'][1])} ({best})",
                certified(each.get("certificate best" if best != "magnitude" else "certificate magnitude")),
                predicted(each.get("prediction")),
                percent(each.get("prediction", {}).get("measured")),
                bracket(each.get("limit")),
                f"{percent(about['baseline'])} ({percent(about['baseline_accuracy'], 2)})",
            )
        )
    return table(head, rows)


def network(title: str, each: Studies) -> str:
    """One network: its split, its orders, its certificates, its layers."""
    lines = [f"## {title}", "", f"Data: {each['network']['split']}.", ""]
    orders = {name.removeprefix("order "): line for name, line in each.items() if name.startswith("order ")}
    rows = [order_row(name, line) for name, line in sorted(orders.items(), key=lambda pair: -(at(pair[1], 1) or 0.0))]
    lines += [table(("order", "0.5 points", "1 point", "2 points", "seconds", "how"), rows), ""]
    certificates = {
        each[name]["order"]: each[name] for name in ("certificate magnitude", "certificate best") if name in each
    }
    for order, line in certificates.items():
        lines.append(f"- {order} order, measured {percent(line['measured'])}: {line['sentence']}")
    if "prediction" in each:
        line = each["prediction"]
        lines.append(
            f"- Predicted by loss: {percent(line['predicted'])} for a tolerance of {line['tolerance']:.3g},"
            f" by {line['products']} products in {line['predict_seconds']:.0f} s. This mask raises the loss by"
            f" {line['rise'] / line['tolerance']:.1f} tolerances. Measured by loss: {percent(line['measured'])}, in"
            f" {line['measure_seconds']:.0f} s."
        )
    if "limit" in each:
        line = each["limit"]
        lines.append(
            f"- Limit from {line['products']} products over {line['examples']} examples, in {line['seconds']:.0f} s:"
            f" {bracket(line)}" + (f"; {line['outlook']}" if line["outlook"] else "") + "."
        )
        binding = ", ".join(f"`{layer['name']}` ({percent(layer['sparsity'])} removed)" for layer in line["binding"])
        lines.append(f"- At the predicted sparsity, these layers raise the loss most: {binding}.")
    if "audits" in each:
        line = each["audits"]
        lines.append(
            "- Audit: in each trial one layer was damaged, and all others were rounded to 8 bits. The audit found the"
            f" damaged layer in {line['found']} of {len(line['trials'])} trials, and the local model alone found it in"
            f" {line['found_locally']}."
        )
    return "\n".join(lines)


def order_row(order: str, line: Line) -> tuple[str, ...]:
    if "refused" in line:
        return order, "-", "-", "-", "-", line["refused"]
    how = line["note"].replace("|", "\\|")
    return order, *(percent(value) for value in line["measured"]), f"{line['seconds']:.0f}", how


def findings(found: dict[str, Studies]) -> str:
    """What can be counted over all networks."""
    checked = [each["prediction"] for each in found.values() if "prediction" in each]
    held = [line for line in checked if line["holds"]]
    errors = [abs(line["predicted"] - line["measured"]) for line in held]
    gains = [
        each[f"order {best}"]["measured"][1] - each["order magnitude"]["measured"][1]
        for each in found.values()
        if (best := best_order(each)) is not None and "order magnitude" in each
    ]
    resolved = sum(bool(each["limit"]["resolved"]) for each in found.values() if "limit" in each)
    limits = sum("limit" in each for each in found.values())
    lines = []
    if checked:
        lines.append(
            f"- {len(held)} of {len(checked)} predictions held when they were checked. These differ from the measured"
            f" sparsity by {100 * sum(errors) / max(len(errors), 1):.1f} points on average, and by"
            f" {100 * max(errors, default=0):.1f} at most."
        )
    if gains:
        lines.append(
            f"- The best order removes {100 * min(gains):.1f} to {100 * max(gains):.1f} points more than magnitude."
        )
    if limits:
        lines.append(f"- {resolved} of {limits} limits are resolved with so few products.")
    return "\n".join(lines)


def random_gpt2(line: Line) -> str:
    lines = [
        "## GPT-2 small with random weights",
        "",
        f"A network of this size can be measured and audited. It has {line['weights']:,} weights, and the data are 8",
        f"sequences of 64 random tokens. Measuring took {line['measure_seconds']:.0f} s and the audit"
        f" {line['audit_seconds']:.0f} s, with at most {line['peak_gib']} GiB of memory.",
        f"For a magnitude mask that removes 30 %, the audit predicts that the loss changes by"
        f" {line['predicted_rise']:+.4f}; measured is {line['measured_rise']:+.4f}.",
    ]
    return "\n".join(lines)


def best_order(each: Studies) -> str | None:
    """The order with the largest sparsity for one point."""
    reached = {name.removeprefix("order "): at(line, 1) for name, line in each.items() if name.startswith("order ")}
    known = {name: value for name, value in reached.items() if value is not None}
    return max(known, key=lambda name: known[name]) if known else None


def at(line: Line | None, goal: int) -> float | None:
    return None if line is None or "measured" not in line else line["measured"][goal]


def certified(line: Line | None) -> str:
    return "-" if line is None else "nothing" if line["certified"] is None else percent(line["certified"])


def predicted(line: Line | None) -> str:
    return "-" if line is None else percent(line["predicted"]) + ("" if line["holds"] else " FAILED")


def bracket(line: Line | None) -> str:
    if line is None:
        return "-"
    ends = f"{100 * line['limit_low']:.1f} to {percent(line['limit_high'])}"
    return ends if line["resolved"] else f"not resolved: {ends}"


def percent(share: float | None, digits: int = 1) -> str:
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [list(head), *map(list, rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])
