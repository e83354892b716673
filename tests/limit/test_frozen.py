"""Which weights are meant: every public function takes those that are prunable and not frozen, unless it gets names."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import howsparse
from howsparse.pruning.orders import ORDERS

HEAD, WEIGHTS = "2.weight", 96  # of 1,312
QUIET: dict[str, Any] = {"progress": False}
COMPUTED: dict[str, Any] = {"tolerance": 0.05, **QUIET}


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(38, 32).requires_grad_(False), nn.ReLU(), nn.Linear(32, 3))


def data() -> list[tuple[Tensor, Tensor]]:
    inputs = torch.randn(600, 38, generator=torch.Generator().manual_seed(1))
    return list(zip(inputs.split(300), inputs[:, :3].argmax(1).split(300), strict=True))


def masks() -> dict[str, Callable[[nn.Module, Any], howsparse.Mask]]:
    """Every public function that gives a mask, and every answer that has one."""
    return {
        "magnitude_mask": lambda model, batches: howsparse.magnitude_mask(model, 0.5),
        "layerwise_mask": lambda model, batches: howsparse.layerwise_mask(model, 0.5),
        "random_mask": lambda model, batches: howsparse.random_mask(model, 0.5),
        "n_of_m_mask": lambda model, batches: howsparse.n_of_m_mask(model, 2, 4),
        "pruning_limit": lambda model, batches: howsparse.pruning_limit(
            model, batches, max_products=40, **COMPUTED
        ).mask(model, 0.5),
        "predict": lambda model, batches: howsparse.predict(model, batches, **COMPUTED).mask(model, 0.5),
        "certify": lambda model, batches: howsparse.certify(model, batches, max_drop=0.4, **QUIET).mask,
        "prune_and_repair": lambda model, batches: howsparse.prune_and_repair(model, 0.5, batches),
        "measure_repaired": lambda model, batches: (
            howsparse.measure_repaired(
                model, batches, calibration=batches, orders=["magnitude"], repairs=["none", "layers"], **QUIET
            ).network.mask
        ),
        "measure": lambda model, batches: howsparse.magnitude_mask(
            model, howsparse.measure(model, batches, max_drop=0.2, **QUIET).sparsity
        ),
    } | {
        f"rank, {order}": lambda model, batches, order=order: howsparse.rank(model, order, batches).mask(0.5)
        for order in ORDERS
    }


@pytest.mark.parametrize("made", masks().values(), ids=masks())
def test_masks_are_over_the_weights_that_are_not_frozen(made: Callable[[nn.Module, Any], howsparse.Mask]) -> None:
    model, batches = network(), data()
    before = model.get_parameter("0.weight").clone()
    mask = made(model, batches)
    assert {name: kept.numel() for name, kept in mask.items()} == {HEAD: WEIGHTS}
    mask.apply_(model)
    howsparse.prune(model, mask)
    assert torch.equal(model.get_parameter("0.weight"), before)
    assert not model.get_parameter("0.weight").requires_grad


def test_answers_count_the_weights_that_are_not_frozen() -> None:
    model, batches = network(), data()
    assert howsparse.pruning_limit(model, batches, max_products=40, **COMPUTED).num_weights == WEIGHTS
    assert howsparse.predict(model, batches, **COMPUTED).num_weights == WEIGHTS
    assert howsparse.recoverable(model, batches, max_products=40, **COMPUTED).num_weights == WEIGHTS
    assert howsparse.directional_limit(model, batches, **COMPUTED).num_weights == WEIGHTS
    changed = howsparse.audit(model, howsparse.magnitude_mask(model, 0.5), batches, **QUIET)
    assert [(layer.name, layer.num_weights) for layer in changed.layers] == [(HEAD, WEIGHTS)]


def test_what_the_prediction_allows_is_what_its_mask_does() -> None:
    """The loss rises by what the limit measured for its mask, because both are about the same weights."""
    model, batches = network(), data()
    limit = howsparse.pruning_limit(model, batches, max_products=40, **COMPUTED)
    before = howsparse.outcomes(model, batches).loss
    limit.mask(model, limit.predicted).apply_(model)
    assert limit.checked_rise is not None
    assert howsparse.outcomes(model, batches).loss - before == pytest.approx(limit.checked_rise, abs=1e-6)


def test_names_choose_frozen_weights_too() -> None:
    model, batches = network(), data()
    assert list(howsparse.magnitude_mask(model, 0.5, ["0.weight"])) == ["0.weight"]
    assert howsparse.predict(model, batches, names=["0.weight"], **COMPUTED).names == ("0.weight",)


@pytest.mark.parametrize("proximal", [False, True])
def test_a_frozen_weight_has_no_l1_term_and_no_optimizer(proximal: bool) -> None:
    """The README's line, with an optimizer of the trained head alone."""
    model = network()
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    weights = howsparse.prunable_weights(model).values()
    term = howsparse.attach_l1(optimizer, weights, 0.5, proximal=proximal)
    assert term.penalty() == pytest.approx(0.5 * float(model.get_parameter("2.weight").detach().abs().sum()))
    whole = howsparse.attach_l1(torch.optim.SGD(model.parameters(), lr=0.1), weights, 0.5, proximal=proximal)
    assert whole.penalty() == term.penalty()
