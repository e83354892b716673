"""The table and the picture of an audit."""

import io
import itertools
import re
from dataclasses import replace

import torch
from rich.console import Console

from howsparse.limit.audit import Audit, LayerShare, audit
from howsparse.report.audit import audit_lines, audit_table, plot_audit
from networks_for_tests import convnet_case


def made_up(count: int, measured: float = 0.1) -> Audit:
    """Layer i has the share (i + 1) / 1000, one third of it of first order."""
    layers = tuple(LayerShare(f"layer{i}", 100, 50, 0.1, (i + 1) / 3e3, (i + 1) / 1.5e3, None) for i in range(count))
    return Audit(layers, 1.0, measured, 0.0, (), "hessian", 0, 1e-6)


def printed(found: Audit) -> str:
    out = io.StringIO()
    Console(file=out, width=100).print(audit_table(found))
    return out.getvalue()


def test_the_worst_layers_come_first_and_the_rest_in_one_row() -> None:
    text = printed(made_up(15))
    names = [line.split()[0] for line in text.splitlines() if re.match(r"layer\d+ +\d", line)]
    assert names == [f"layer{i}" for i in range(14, 7, -1)]
    assert len(text.splitlines()) <= 15
    assert "8 more layers" in text
    assert "+0.036" in text  # 1 + 2 + ... + 8 thousandths
    assert "+0.12" in text  # the total
    assert re.search(r"^measured +\+0\.1 *$", text, re.MULTILINE)
    assert "Prediction and measurement agree" in text
    assert "more layer" not in printed(made_up(7))


def test_a_prediction_that_failed_is_shown_as_failed() -> None:
    failed = made_up(3, measured=2.0)
    assert any("does not hold" in line for line in audit_lines(failed))
    assert any("not reliable" in line for line in audit_lines(failed))
    shares = (0.1, 1.9, -0.05)
    on_path = replace(
        failed,
        points=8,
        layers=tuple(replace(layer, path=share) for layer, share in zip(failed.layers, shares, strict=True)),
    )
    lines = audit_lines(on_path)
    assert lines[0].startswith("layer1 raises the loss most, by +1.9")
    assert any("8 gradients along the change, and add up to 1.95" in line for line in lines)
    assert "along the" in printed(on_path)


def test_buffers_are_mentioned() -> None:
    found = replace(made_up(1), buffers=("bn.running_mean",), measured_buffers=0.25)
    assert any("bn.running_mean" in line and "0.25" in line for line in audit_lines(found))


def test_no_layer_is_blamed_if_none_raises_the_loss() -> None:
    better = replace(made_up(1), layers=(LayerShare("a", 1, 1, 0.1, -0.5, 0.0, None),), measured=-0.5)
    assert audit_lines(better)[0] == "No layer raises the loss."


def test_the_picture_has_a_legible_row_for_each_layer() -> None:
    for found in (made_up(60), audit(*_damaged())):
        figure = plot_audit(found)
        figure.canvas.draw()
        (axes,) = figure.axes
        labels = axes.get_yticklabels()
        assert [label.get_text() for label in labels] == [layer.name for layer in found.layers]
        boxes = [label.get_window_extent() for label in labels]
        assert all(above.y0 > below.y1 - 1 for above, below in itertools.pairwise(boxes))
        bold = [label.get_text() for label in labels if label.get_fontweight() == "bold"]
        assert bold == [found.worst.name]


def _damaged() -> tuple[torch.nn.Module, dict[str, torch.Tensor], list[tuple[torch.Tensor, torch.Tensor]]]:
    model, batches = convnet_case()
    return model, {"0.weight": model.get_parameter("0.weight").detach() * 100}, batches
