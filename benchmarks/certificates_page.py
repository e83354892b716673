"""The page that `benchmarks.certificates` writes."""

from typing import Any

__all__ = ["page"]

Records = list[dict[str, Any]]


def page(records: Records) -> str:
    """The page in docs."""
    counted = [r for r in records if "wrong" in r]
    worst = max(r["wrong"] / r["setting"]["repetitions"] for r in counted)
    above = sum(r["low"] > 0.05 for r in counted) or "none"
    repetitions = min(r["setting"]["repetitions"] for r in counted)
    lines = [
        "# Certificates, simulated",
        "",
        "This page shows how often certificates are wrong, and how much can be certified. It is for readers who want",
        "to rely on a certificate. It uses simulated data, for which the truth is known. Made by",
        "`python -m benchmarks.certificates`; the records are in `results/certificates.jsonl`. [The",
        "theory](theory.md#certified) has the proofs.",
        "",
        "The confidence is 95 %, so at most 5 % of the certificates may be wrong. The accuracy may drop by 0.01 (one",
        "point). *Exact* is the exact paired test, and *betting* the test for scores and losses. In every table,",
        "*wrong* is the share of wrong certificates, with its exact 95 % interval.",
        "",
        f"This interval lies above 5 % in {above} of the {len(counted)} settings. The largest share of wrong",
        f"certificates is {100 * worst:.1f} %, with {repetitions:,} repetitions for each setting.",
        "",
        *one_test_table(records),
        *sequence_table(records),
        *network_table(records),
        *power_table(records),
    ]
    return "\n".join(lines) + "\n"


def one_test_table(records: Records) -> list[str]:
    lines = [
        "## One test at the edge",
        "",
        "The true drop is the allowed one, or a little more, so every certificate is wrong. *Won* is the probability",
        "that pruning makes a wrong prediction right. In the last rows the scores are between 0 and 1.",
        "",
        "| test | true drop | won | examples | wrong |",
        "|---|---|---|---|---|",
    ]
    for r in of_study(records, "one test") + of_study(records, "scores between"):
        s = r["setting"]
        lines.append(f"| {s['test']} | {s['drop']} | {s.get('won', '-')} | {s['n']:,} | {share(r)} |")
    return [*lines, ""]


def sequence_table(records: Records) -> list[str]:
    lines = [
        "## Whole sequences",
        "",
        "20 masks are tested one after the other. Their true drops are 0.00083, 0.00167 and so on. The drop of mask",
        "12 is 0.01, and a certificate for this mask or a later one counts as wrong. *Nested*: an example that a mask",
        "gets wrong is also wrong for all later masks. The last column is the median of the true drops that were",
        "certified.",
        "",
        "| test | outcomes of the masks | examples | wrong | median drop |",
        "|---|---|---|---|---|",
    ]
    for r in of_study(records, "sequence"):
        s = r["setting"]
        kind = "nested" if s["nested"] else "independent"
        lines.append(f"| {s['test']} | {kind} | {s['n']:,} | {share(r)} | {r['median_drop']:.4f} |")
    return [*lines, ""]


def network_table(records: Records) -> list[str]:
    found = of_study(records, "network")
    population = found[0]["population"] if found else 0
    lines = [
        "## A network",
        "",
        f"The network has the sizes 64-64-32-10 and was trained on 360 digits. The population is {population:,} other",
        "digits. Held-out examples are drawn from them with replacement, so the true drop of every mask is known. The",
        "test *loss* is the betting test for the loss, which counts as at most 5 for each example and may rise by",
        "0.1. *Possible* is the largest tested sparsity whose true drop is allowed, and *certified* is the median of",
        "the certified sparsities.",
        "",
        "| test | examples | wrong | possible | certified |",
        "|---|---|---|---|---|",
    ]
    for r in found:
        s = r["setting"]
        lines.append(f"| {s['test']} | {s['n']:,} | {share(r)} | {r['true_limit']:.2f} | {r['median_certified']:.2f} |")
    return [*lines, ""]


def power_table(records: Records) -> list[str]:
    lines = [
        "## What can be certified",
        "",
        "The last four columns are four tests. Their numbers are the share of repetitions in which a drop of at most",
        "one point is certified, for a network whose true drop is smaller. *Two bounds* takes a Clopper-Pearson bound",
        "for each of the two rates, at half the level. *Normal* is the normal approximation, which guarantees nothing",
        "for a finite number of examples.",
        "",
        "| examples | won | true drop | exact | betting | two bounds | normal |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in of_study(records, "power"):
        s = r["setting"]
        cells = " | ".join(f"{r[name]:.2f}" for name in ("exact", "betting", "two bounds", "normal"))
        lines.append(f"| {s['n']:,} | {s['won']} | {s['drop']} | {cells} |")
    return lines


def of_study(records: Records, study: str) -> Records:
    return [r for r in records if r["setting"]["study"] == study]


def share(record: dict[str, Any]) -> str:
    wrong = record["wrong"] / record["setting"]["repetitions"]
    return f"{100 * wrong:.1f} % ({100 * record['low']:.1f} to {100 * record['high']:.1f})"
