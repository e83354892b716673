"""Commands that evaluate a network and need no curvature: measure, certify; and audit, which needs one product."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from howsparse.cli.app import app
from howsparse.cli.following import after_certificate, after_measurement
from howsparse.cli.measuring import (
    certify_subject,
    measure_subject,
    measured_summary,
    orders_named,
    orders_summary,
    question_of,
    write_measurement,
)
from howsparse.cli.options import (
    DataOption,
    ForceOption,
    JsonOption,
    ModelArgument,
    OrderOption,
    PlotOption,
    RecordOption,
    SeedOption,
    WeightsOption,
    with_dataclass_options,
)
from howsparse.cli.subject import DataOptions, GoalOptions, load_data, load_subject
from howsparse.cli.terminal import note, print_json, show_next, show_table, show_text, stage_bars
from howsparse.errors import InputError


@app.command()
@with_dataclass_options
def measure(
    model: ModelArgument,
    *,
    weights: WeightsOption = None,
    data: DataOption = None,
    goals: GoalOptions,
    order: OrderOption = "magnitude",
    parts: DataOptions,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    plot: PlotOption = None,
    record: RecordOption = None,
    force: ForceOption = False,
) -> None:
    """Measure how many weights can go while the accuracy is kept, by evaluating pruned networks."""
    from howsparse.report.measured import measured_sentence, measured_table, orders_table, plot_measured
    from howsparse.report.plots import save_figure

    orders = orders_named(order)
    subject = load_subject(model, weights, data, parts)
    began = time.perf_counter()
    comparison = measure_subject(subject, orders, goals, seed)
    best, seconds = comparison.best, time.perf_counter() - began
    found = measured_summary(subject, best) | {"seconds": round(seconds, 3)}
    if order == "best":
        found |= orders_summary(comparison)
    about = {"kind": "measure", "model": model, "seed": seed, "images": parts.images}
    write_measurement(record, about | found)
    if as_json:
        print_json(found | about)
    else:
        show_text(measured_sentence(best, found["num_weights"]))
        examples = "test examples" if subject.splits else "examples, which may have trained the network"
        show_table(measured_table(best, found, examples) if order != "best" else orders_table(comparison))
        show_next(after_measurement(subject, best, goals.metric, order == "best"))
    if plot is not None:
        save_figure(plot_measured(best, model), plot)
        note(f"picture: {plot}")


@app.command()
@with_dataclass_options
def certify(
    model: ModelArgument,
    *,
    weights: WeightsOption = None,
    data: DataOption = None,
    goals: GoalOptions,
    held_out: Annotated[
        str | None, typer.Option(help="Held-out data, as for --data; default: half of the test data.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Confidence of the certificate, in (0.5, 1).")] = 0.95,
    loss_bound: Annotated[
        float | None, typer.Option(help="With --tolerance: a larger loss of one example counts as this loss.")
    ] = None,
    order: OrderOption = "magnitude",
    parts: DataOptions,
    output: Annotated[Path | None, typer.Option(help="Write the certificate and its mask to this file.")] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    record: RecordOption = None,
    force: ForceOption = False,
) -> None:
    """Prove on held-out data how many weights can go while the accuracy on unseen data drops by at most --max-drop."""
    from howsparse.report.measured import certificate_table

    orders_named(order)
    subject = load_subject(model, weights, data, parts)
    question = question_of(subject, goals, loss_bound, confidence)
    if held_out is not None:
        choose, held = subject.test, load_data(held_out, model, subject.model, parts)[1]
    elif subject.splits:
        choose, held = subject.halves()
    else:
        raise InputError("--data has no test data, so nothing is held out; give --held-out data that chose nothing")
    began = time.perf_counter()
    certificate = certify_subject(subject, choose, held, goals, order, question, seed)
    found = certificate.summary() | {"seconds": round(time.perf_counter() - began, 3)}
    about = {"kind": "certify", "model": model, "seed": seed, "images": parts.images}
    write_measurement(record, about | found)
    if as_json:
        print_json(found | about)
    else:
        show_text(certificate.sentence)
        show_table(certificate_table(certificate))
        show_next(after_certificate(subject, certificate, goals, loss_bound, held_out, output))
    if output is not None:
        certificate.save(output)
        note(f"certificate: {output}")


@app.command()
@with_dataclass_options
def audit(
    model: ModelArgument,
    *,
    weights: WeightsOption = None,
    data: DataOption = None,
    change: Annotated[Path, typer.Option(help="The changed weights: a state dict, a part of one, or a mask.")],
    points: Annotated[
        int | None,
        typer.Option(min=0, help="Gradients along the change; default: 8 if the prediction fails, else 0."),
    ] = None,
    parts: DataOptions,
    as_json: JsonOption = False,
    plot: PlotOption = None,
    record: RecordOption = None,
    force: ForceOption = False,
) -> None:
    """Show which layers raise the loss when weights are changed."""
    from howsparse.limit.audit import audit as compute
    from howsparse.loading import read_change
    from howsparse.report.audit import audit_table, plot_audit
    from howsparse.report.plots import save_figure

    subject = load_subject(model, weights, data, parts)
    changed = read_change(change, subject.model)
    began = time.perf_counter()
    with stage_bars() as show:
        found = compute(subject.model, changed, subject.train, loss=subject.loss, points=points, progress=show)
    seconds = round(time.perf_counter() - began, 3)
    numbers = {
        "predicted": found.predicted,
        "measured": found.measured,
        "dense_loss": found.dense_loss,
        "agrees": found.agrees,
        "worst": found.worst.name,
        "points": found.points,
        "layers": [asdict(layer) | {"share": layer.share} for layer in found.layers],
        "seconds": seconds,
    }
    about = {"kind": "audit", "model": model, "change": change.name, "images": parts.images}
    write_measurement(record, about | numbers)
    if as_json:
        print_json(numbers | about)
    else:
        show_table(audit_table(found))
    if plot is not None:
        save_figure(plot_audit(found), plot)
        note(f"picture: {plot}")
