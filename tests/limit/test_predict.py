"""A prediction is checked by evaluating its mask, and a prediction that failed says so."""

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from howsparse import InputError, Prediction, PruningLimit, predict, pruning_limit
from howsparse.limit.assess import assess
from howsparse.limit.options import Answer, LimitOptions
from howsparse.risk.curvature import Hessian
from networks_for_tests import Batches, mlp_case


@functools.cache
def memorised() -> tuple[nn.Module, Batches]:
    """A network that fits its data nearly perfectly: tiny loss, so its curvature vanishes."""
    model, batches = mlp_case(seed=1, examples=40)
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 2e-3
    return model, batches


def rise_of(model: nn.Module, batches: Batches, sparsity: float) -> float:
    """Measured loss increase of the magnitude mask that removes this share, by hand."""
    weights = {name: w for name, w in model.named_parameters() if w.ndim > 1}
    flat = torch.cat([w.detach().flatten() for w in weights.values()])
    order, gone = flat.abs().argsort(), round(sparsity * flat.numel())
    pruned = flat.clone()
    pruned[order[:gone]] = 0
    parts = dict(zip(weights, pruned.split([w.numel() for w in weights.values()]), strict=True))
    state = {name: parts[name].view(w.shape) for name, w in weights.items()}
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])

    def loss(changed: dict[str, Tensor]) -> float:
        with torch.no_grad():
            return float(nn.functional.cross_entropy(torch.func.functional_call(model, changed, (inputs,)), targets))

    return loss(state) - loss({})


@pytest.mark.parametrize("curvature", ["hessian", "ggn"])
@pytest.mark.parametrize("tolerance", [0.001, 0.05, 0.3])
def test_the_check_is_the_measured_rise_of_the_mask(curvature: str, tolerance: float) -> None:
    model, batches = mlp_case(examples=300)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = predict(model, batches, tolerance=tolerance, curvature=curvature)  # type: ignore[arg-type]
    assert found.checked_rise == pytest.approx(rise_of(model, batches, found.sparsity), abs=1e-12)
    assert found.holds == (found.checked_rise <= 2 * tolerance)
    assert found.num_products <= 11
    assert found.mask(model, 0.5).sparsity == 0.5
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_limit_predicts_and_checks_the_same() -> None:
    model, batches = mlp_case(examples=300)
    alone = predict(model, batches, tolerance=0.05, curvature="hessian")
    limit = pruning_limit(model, batches, tolerance=0.05, max_products=32)
    assert (limit.predicted, limit.checked_rise) == (alone.sparsity, alone.checked_rise)
    assert limit.prediction_holds == alone.holds
    other = limit.at(tolerance=0.01)
    assert (other.checked_rise, other.prediction_holds) == (None, None)  # of another mask, which was not evaluated
    assert limit.at(negative="unbounded").checked_rise == limit.checked_rise


def test_a_prediction_that_fails_says_so(tmp_path: Path) -> None:
    model, batches = memorised()
    found = predict(model, batches, tolerance=0.02)
    limit = pruning_limit(model, batches, tolerance=0.02, max_products=40)
    assert found.checked_rise > 10 * 0.02
    assert not found.holds
    assert limit.prediction_holds is False
    for shown in (str(found), str(limit)):
        assert "FAILED: its mask raises the loss by" in shown
    for refused in (found.mask, limit.mask):
        with pytest.raises(InputError, match=r"^the prediction failed: its mask raises the loss by .* tolerances; use"):
            refused(model)
    assert limit.mask(model, 0.3).sparsity == pytest.approx(0.3, abs=0.5 / 56)  # a given sparsity is nobody's promise
    assert limit.summary().predicted_holds is False
    assert limit.summary().predicted_rise == limit.checked_rise
    limit.save(tmp_path / "limit")
    assert PruningLimit.load(tmp_path / "limit").prediction_holds is False


def test_an_answer_that_failed_is_not_a_sparsity_to_prune_to() -> None:
    model, batches = memorised()
    answer = assess(model, batches, batches, options=LimitOptions(tolerance=0.02, max_products=32))
    assert answer.sparsity(Answer.MEASURED) < answer.limit.predicted
    with pytest.raises(InputError, match="the prediction failed"):
        answer.sparsity(Answer.PREDICTED)
    with pytest.raises(InputError, match="the limit is not resolved"):
        answer.sparsity(Answer.LIMIT)
    summary = answer.summary(answer.on_test.dense)
    assert (summary["predicted_holds"], summary["limit"], summary["larsen_interval"]) == (False, None, None)


def test_a_stop_while_measuring_loses_no_products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches = mlp_case()
    options = LimitOptions(tolerance=0.05, max_products=32)

    def stop(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("measuring the loss", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        assess(model, batches, batches, options=options, keep=tmp_path, progress=stop)
    taken: list[int] = []
    monkeypatch.setattr(Hessian, "over_first", lambda self, count, vector: taken.append(count))
    again = assess(model, batches, batches, options=options, keep=tmp_path)
    assert taken == []
    monkeypatch.undo()
    assert again.limit.summary() == pruning_limit(model, batches, options=options).summary()


def test_the_curvature_is_the_cheaper_one_that_the_loss_allows() -> None:
    model, batches = mlp_case()

    def plain(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    assert predict(model, batches, tolerance=0.1).curvature == "ggn"
    assert predict(model, batches, tolerance=0.1, loss=plain).curvature == "hessian"


@pytest.mark.parametrize(
    ("options", "match"), [({"tolerance": 0.0}, "is not positive"), ({"curvature": "fisher"}, "use 'hessian' or 'ggn'")]
)
def test_bad_arguments(options: dict[str, object], match: str) -> None:
    model, batches = mlp_case()
    with pytest.raises(InputError, match=match):
        predict(model, batches, **({"tolerance": 0.1} | options))  # type: ignore[arg-type]


def test_a_prediction_prints_as_a_table() -> None:
    model, batches = mlp_case()
    found = predict(model, batches, tolerance=0.1)
    assert isinstance(found, Prediction)
    assert len(repr(found)) < 200
    assert str(found).splitlines()[0] == "Prediction"
    assert found._repr_html_().count("<tr>") == 4
