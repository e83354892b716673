"""FC5 on CIFAR-10, trained with the paper's settings: the page in docs, from the records of its runs.

howsparse train fc5-cifar10 --data DATA --seed 0 --output runs/fc5-seed0.safetensors --record results/train.jsonl
howsparse limit fc5-cifar10 --weights runs/fc5-seed0.safetensors --data DATA --curvature hessian
    --record results/limit.jsonl        (and once more with --curvature ggn)
python -m benchmarks.fc5 [--table docs/fc5.md]
"""

import argparse
from pathlib import Path
from typing import Any

from howsparse.files import write_whole
from howsparse.records import read_records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--table", type=Path, default=Path("docs/fc5.md"))
    options = parser.parse_args()
    train = [r for r in read_records(options.results / "train.jsonl") if r["task"] == "fc5-cifar10"][-1]
    limits = {r["curvature"]: r for r in read_records(options.results / "limit.jsonl") if r["model"] == "fc5-cifar10"}
    write_whole(options.table, lambda file: file.write_text(page(train, limits["hessian"], limits["ggn"])))
    print(options.table.read_text())


def page(train: dict[str, Any], hessian: dict[str, Any], ggn: dict[str, Any]) -> str:
    whole = "all 50,000"
    rows = [
        ("limit, negative curvature a wall (the paper's)", interval(hessian, "limit"), "paper: 97.9 ± 0.25"),
        ("limit, negative curvature unbounded (clipped H)", interval(hessian, "limit_unbounded"), ""),
        ("limit, Gauss-Newton", interval(ggn, "limit"), ""),
        ("upper bound 1 - U(T), Hessian", percent(hessian["upper_bound"]), "paper: T and U 0.25 ± 0.09 apart"),
        ("certified, Hessian", percent(hessian["certified"]), ""),
        ("certified, Gauss-Newton", percent(ggn["certified"]), ""),
        ("measured: training loss within its tolerance", percent(hessian["measured"]), ""),
        (
            "measured: test accuracy at least the dense one's",
            percent(hessian["measured_by_accuracy"]),
            "paper: 98.3 ± 0.12",
        ),
    ]
    lines = [
        "# FC5 on CIFAR-10",
        "",
        "Made by `python -m benchmarks.fc5` from `results/train.jsonl` and `results/limit.jsonl`. The network and the",
        f"training are the paper's: {train['recipe']['epochs']} epochs of SGD at {train['recipe']['learning_rate']}"
        f" with l1 {train['recipe']['l1']:g}, seed {train['seed']}. Dense test accuracy"
        f" {percent(train['dense_accuracy'])}, training loss {train['train_loss']:.4f}, tolerance"
        f" {hessian['tolerance']:.4f} (deviation over mini-batches of 128 of all training images). Curvature over"
        f" {whole if hessian['images'] is None else format(hessian['images'], ',')} training images; the interval"
        " covers quadrature, probe and sampling.",
        "",
        "| sparsity, % | here | the paper |",
        "|---|---|---|",
        *(f"| {what} | {here} | {paper} |" for what, here, paper in rows),
        "",
        "What leaves the limit open, half-widths in points of sparsity:",
        "",
        "| curvature | quadrature | probe | data | products |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {100 * r['error_quadrature']:.2f} | {100 * r['error_probe']:.2f} | {100 * r['error_data']:.2f}"
            f" | {r['products']} |"
            for name, r in (("Hessian", hessian), ("Gauss-Newton", ggn))
        ),
        "",
        "Commands:",
        "",
        "```",
        *dict.fromkeys(r["command"] for r in (train, hessian, ggn)),
        "```",
        "",
        "![Hessian](fc5-seed0.png)",
    ]
    return "\n".join(lines) + "\n"


def interval(record: dict[str, Any], name: str) -> str:
    return f"{percent(record[name])} [{percent(record[f'{name}_low'])}, {percent(record[f'{name}_high'])}]"


def percent(share: float) -> str:
    return f"{100 * share:.2f}"


if __name__ == "__main__":
    main()
