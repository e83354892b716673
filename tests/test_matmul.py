import pytest
import torch
from torch import Tensor, nn

from howsparse.matmul import fast_matmul
from howsparse.risk import EmpiricalRisk, cross_entropy, evaluate
from howsparse.risk.modes import evaluation_mode

CPU = torch.device("cpu")
needs_setting = pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="before torch 2.9")


@needs_setting
@pytest.mark.parametrize("before", ["ieee", "bf16", "none"])
def test_setting_is_put_back_even_after_an_error(before: str) -> None:
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    at_first = settings.fp32_precision
    settings.fp32_precision = before
    asked = settings.fp32_precision
    try:
        with pytest.raises(ZeroDivisionError), fast_matmul(CPU):
            _ = 1 / 0
        assert settings.fp32_precision == asked
    finally:
        settings.fp32_precision = at_first


def test_is_as_exact_as_float32_on_every_processor() -> None:
    generator = torch.Generator().manual_seed(0)
    for rows, inner, columns in ((1, 7, 3), (128, 3072, 1000), (33, 65, 10)):
        left = torch.randn(rows, inner, generator=generator)
        right = torch.randn(inner, columns, generator=generator)
        exact = left.double() @ right.double()
        with fast_matmul(CPU):
            product = left @ right
        assert float((product - exact).norm() / exact.norm()) < 2e-6


def test_where_products_would_be_rounded_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("howsparse.matmul._onednn_is_exact", lambda: False)
    left = torch.randn(64, 512, generator=torch.Generator().manual_seed(1))
    with fast_matmul(CPU):
        inside = left @ left.T
    assert torch.equal(inside, left @ left.T)


@needs_setting
def test_who_computes_switches_it_on_and_evaluation_mode_does_not() -> None:
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    with fast_matmul(CPU):
        on = settings.fp32_precision
    off = settings.fp32_precision
    seen: list[str] = []

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        seen.append(settings.fp32_precision)
        return cross_entropy(model, batch)

    model, batches = nn.Linear(2, 2), [(torch.eye(2), torch.tensor([0, 1]))]
    with evaluation_mode(model):
        loss(model, batches[0])
    assert seen == [off]
    evaluate(model, batches, loss)
    EmpiricalRisk(model, batches, loss).gradient()
    assert set(seen[1:]) == {on}
    assert settings.fp32_precision == off
