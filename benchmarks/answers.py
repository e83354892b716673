"""Every answer for two networks, with the seconds that it takes: the table of docs/which-number.md.

    python -m benchmarks.answers [NETWORK ...] --nets FOLDER --cifar10 FOLDER [--record results/answers.jsonl]
        [--page docs/which-number.md]

NETWORK: digits, ResNet20; both unless given. They are the tutorial's MLP on digits, which takes seconds, and a
ResNet20 for CIFAR-10 that others trained, whose weights are in the folder of --nets. Two points of accuracy may be
lost on digits, and one on CIFAR-10. The answers about the loss allow the default tolerance. Time is the processor's
on one thread, so that other processes do not count. Cases recorded are not run again.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

import howsparse
from benchmarks.commands import own_command
from benchmarks.real_networks_cases import CASES, Case, Sources
from howsparse.files import write_whole
from howsparse.records import Measurement, append_record, provenance, read_lines

MARKER, END = "<!-- answers, by benchmarks.answers -->", "<!-- end -->"
DROPS = {"digits": 0.02, "ResNet20": 0.01}
PREDICTED = 500  # examples of the answers about the loss on ResNet20; the limit takes the case's own number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(DROPS))
    parser.add_argument("--nets", type=Path, default=Path("nets"))
    parser.add_argument("--cifar10", type=Path, default=Path("cifar10"))
    parser.add_argument("--record", type=Path, default=Path("results/answers.jsonl"))
    parser.add_argument("--page", type=Path, default=Path("docs/which-number.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = {line["network"] for line in read_lines(options.record)} if options.record.exists() else set()
    nothing = Path("none")
    sources = Sources(options.nets, options.cifar10, nothing, nothing, nothing)
    makers: dict[str, Callable[[], Case]] = {"digits": digits, "ResNet20": lambda: CASES["resnet20"](sources)}
    for network in options.networks:
        if network not in done:
            case = makers[network]()
            found = {name: timed(answer) for name, answer in answers(case, DROPS[network]).items()}
            made = provenance(own_command("benchmarks.answers"))
            num_weights = sum(weight.numel() for weight in howsparse.prunable_weights(case.model).values())
            record = {"network": network, "num_weights": num_weights, "max_drop": DROPS[network], "answers": found}
            append_record(Measurement(kind="answers", made=made, **record), options.record)
    text = with_table(options.page.read_text(), list(read_lines(options.record)))
    write_whole(options.page, lambda file: file.write_text(text))


def digits() -> Case:
    """The network of docs/tutorial.md, trained without an l1 term."""
    images = load_digits()
    chosen = torch.randperm(len(images.target), generator=torch.Generator().manual_seed(0))
    inputs, targets = torch.tensor(images.data, dtype=torch.float32) / 16, torch.tensor(images.target)
    train, choose, held_out = (
        [(inputs[part], targets[part]) for part in chosen[first:last].split(100)]
        for first, last in ((0, 700), (700, 1200), (1200, 1797))
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    for _ in range(20):
        for x, y in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return Case(model, train, choose, held_out, "700, 500 and 597 images", max_products=400, limit_examples=700)


def answers(case: Case, drop: float) -> dict[str, Callable[[], Any]]:
    """What to compute for each answer; each gives a sparsity or a bracket."""
    model, chosen_on = case.model, case.calibration + case.choose
    some = first_examples(case.calibration, PREDICTED)
    limited = first_examples(case.calibration, case.limit_examples)
    return {
        "measured": lambda: howsparse.measure(model, case.choose, max_drop=drop).sparsity,
        "certified": lambda: howsparse.certify(model, case.held_out, max_drop=drop, chosen_on=chosen_on).sparsity,
        "predicted": lambda: howsparse.predict(model, some).sparsity,
        "recoverable": lambda: howsparse.recoverable(model, some, max_products=min(100, case.max_products)).bracket,
        "limit": lambda: (
            howsparse.pruning_limit(model, limited, curvature="ggn", max_products=case.max_products).bracket
        ),
    }


def first_examples(batches: list[Any], count: int) -> list[Any]:
    """Whole batches until there are ``count`` examples."""
    sizes, taken = [len(batch[1]) for batch in batches], 0
    while sum(sizes[:taken]) < count and taken < len(sizes):
        taken += 1
    return batches[:taken]


def timed(answer: Callable[[], Any]) -> dict[str, Any]:
    began = time.process_time()
    found = answer()
    ends = (found, found) if isinstance(found, float) else (float(found[0]), float(found[1]))
    return {"low": ends[0], "high": ends[1], "seconds": round(time.process_time() - began, 1)}


def with_table(page: str, lines: list[dict[str, Any]]) -> str:
    """The page with the table of the records between its markers."""
    before, _, after = page.partition(MARKER)
    return f"{before}{MARKER}\n{table(lines)}\n{END}{after.partition(END)[2]}"


def table(lines: list[dict[str, Any]]) -> str:
    """A row for each answer, two columns for each network.

    >>> found = {"limit": {"low": 0.5, "high": 0.75, "seconds": 1.0}}
    >>> line = {"network": "net", "num_weights": 2000, "answers": found}
    >>> print(table([line]))
    | answer | net, 2,000 weights | seconds |
    |---|---|---|
    | **limit** | 50.0 to 75.0 % | 1.0 |
    """
    heads = [f"{line['network']}, {line['num_weights']:,} weights | seconds" for line in lines]
    rows = [["answer", *heads], ["---"] * (2 * len(lines) + 1)]
    for name in lines[0]["answers"]:
        cells = [line["answers"][name] for line in lines]
        rows.append([f"**{name}**", *(f"{interval(each)} | {duration(each['seconds'])}" for each in cells)])
    made = ["|" + "|".join(row) + "|" if row[0] == "---" else f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(made)


def interval(found: dict[str, float]) -> str:
    low, high = 100 * found["low"], 100 * found["high"]
    return f"{low:.1f} %" if low == high else f"{low:.1f} to {high:.1f} %"


def duration(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 0.1 else "< 0.1"


if __name__ == "__main__":
    main()
