"""FC5 on CIFAR-10, trained with the paper's settings: the page in docs and its picture, from the records of its runs.

howsparse train fc5-cifar10 --data DATA --seed 0 --output runs/fc5-seed0.safetensors --record results/train.jsonl
howsparse limit fc5-cifar10 --weights runs/fc5-seed0.safetensors --data DATA --curvature hessian
    --record results/limit.jsonl        (and once more with --curvature ggn)
howsparse run fc5-cifar10 --data DATA --seed 0 --record results/runs.jsonl        (for the picture)
python -m benchmarks.fc5 [--results results] [--docs docs]
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from howsparse.files import write_whole
from howsparse.paper.numbers import paper_tasks
from howsparse.records import AnswerRecord, CaseRecord, TrainRecord, read_records
from howsparse.report.plots import plot_answer, save_figure

TASK = "fc5-cifar10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    results, docs = options.results, options.docs
    train = [r for r in read_records(TrainRecord, ("train",), results / "train.jsonl") if r.problem == TASK][-1]
    limits = {
        r.answer["curvature"]: r
        for r in read_records(AnswerRecord, ("limit",), results / "limit.jsonl")
        if r.model == TASK
    }
    runs = read_records(CaseRecord, ("run",), results / "runs.jsonl")
    text = page(train, limits["hessian"], limits["ggn"], runs)
    write_whole(docs / "fc5.md", lambda file: file.write_text(text))
    save_figure(picture(runs), docs / "fc5-seed0.png")
    print(text)


def picture(runs: list[CaseRecord]) -> Figure:
    """Loss and accuracy of the pruned network, from the study of seed 0."""
    study = next(r.study for r in runs if r.key.problem == TASK and r.key.seed == 0 and r.study is not None)
    return plot_answer(study.answer, study.curves, "FC5 on CIFAR-10, trained with l1, seed 0")


def upper_interval(runs: list[CaseRecord]) -> str:
    """The interval for 1 - U(T), of all runs of FC5 that have one."""
    answers = [r.study.answer for r in runs if r.key.problem == TASK and r.study is not None]
    lows, highs = [a.upper_low for a in answers if a.upper_low], [a.upper_high for a in answers if a.upper_high]
    return f"{percent(min(lows))} to {percent(max(highs))}" if lows and highs else "unknown"


def page(train: TrainRecord, hessian: AnswerRecord, ggn: AnswerRecord, runs: list[CaseRecord]) -> str:
    """The page in docs."""
    paper, answer, gauss_newton = paper_tasks()[TASK], hessian.answer, ggn.answer
    images = "all 50,000" if hessian.examples is None else format(hessian.examples, ",")
    rows = [
        (
            "limit, absolute eigenvalues of the Hessian (the paper's)",
            interval(hessian, "limit"),
            f"paper: {paper.limit}",
        ),
        ("limit, positive eigenvalues of the Hessian only", interval(hessian, "limit_unbounded"), ""),
        ("limit, Gauss-Newton matrix", interval(ggn, "limit"), ""),
        ("upper bound 1 - U(T), Hessian", upper_interval(runs), f"paper: T and U {paper.bounds} apart"),
        ("predicted, Hessian", percent(answer["predicted"]), ""),
        ("predicted, Gauss-Newton matrix", percent(gauss_newton["predicted"]), ""),
        ("measured: training loss within its tolerance", percent(answer["measured"]), ""),
        (
            "measured: test accuracy at least the dense one's",
            percent(answer["measured_by_accuracy"]),
            f"paper: {paper.measured}",
        ),
    ]
    lines = [
        "# FC5 on CIFAR-10",
        "",
        "This page has all answers for one network of the paper, FC5 on CIFAR-10. It is for readers who know the",
        "paper. Made by `python -m benchmarks.fc5` from `results/train.jsonl` and `results/limit.jsonl`. The network",
        "and its",
        f"training are the paper's: {train.settings['epochs']} epochs of SGD with learning rate"
        f" {train.settings['fit']['learning_rate']} and l1 {train.settings['l1']:g}; the seed is {train.seed}.",
        "",
        f"The dense network has test accuracy {percent(train.dense_accuracy)} % and training loss"
        f"{train.train_loss:.4f}. The tolerance is {answer['tolerance']:.4f}: the standard deviation of the loss over",
        f"mini-batches of 128 of all training images. The curvature is computed over {images} training images. The",
        "numbers in square brackets are the ends of the limit's bracket, which covers the errors of quadrature, probe",
        "and sampling. The interval of the upper bound is from the runs in `results/runs.jsonl` that have one. Its",
        "lower end is 1 - 2 T, which always holds.",
        "",
        "| sparsity, % | here | the paper |",
        "|---|---|---|",
        *(f"| {what} | {here} | {paper} |" for what, here, paper in rows),
        "",
        "These are the parts of the bracket, as half-widths in points of sparsity, and the number of products:",
        "",
        "| curvature | quadrature | probe | data | products |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {100 * r['error_quadrature']:.2f} | {100 * r['error_probe']:.2f} | {100 * r['error_data']:.2f}"
            f" | {r['products']} |"
            for name, r in (("Hessian", answer), ("Gauss-Newton", gauss_newton))
        ),
        "",
        "Commands:",
        "",
        "```",
        *dict.fromkeys(r.made.command for r in (train, hessian, ggn)),
        "```",
        "",
        "The picture shows loss and accuracy against sparsity, drawn from `results/runs.jsonl`. That run trained the",
        "network once more with the same settings and the same seed, and its numbers differ a little from those",
        "above:",
        "",
        "![Loss and accuracy of FC5 against sparsity](fc5-seed0.png)",
    ]
    return "\n".join(lines) + "\n"


def interval(record: AnswerRecord, name: str) -> str:
    """A number with its bracket."""
    value, low, high = (percent(record.answer[key]) for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value} [{low}, {high}]"


def percent(share: float | None) -> str:
    """A fraction in per cent."""
    return "-" if share is None else f"{100 * share:.2f}"


if __name__ == "__main__":
    main()
