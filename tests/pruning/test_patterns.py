"""N:M masks: the pattern itself, group by group, and against torch's own reading of a weight."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from howsparse.errors import InputError
from howsparse.pruning.orders import Order, rank
from howsparse.pruning.patterns import n_of_m_mask
from howsparse.pruning.scores import as_rows, from_rows
from howsparse.risk.weights import prunable_weights
from pretrained_for_tests import tiny


@given(st.integers(1, 4), st.sampled_from([2, 4, 8]), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**20))
@settings(deadline=None, max_examples=60)
def test_every_group_keeps_its_largest_weights(keep: int, of: int, rows: int, groups: int, seed: int) -> None:
    keep = min(keep, of)
    model = nn.Linear(groups * of, rows)
    with torch.no_grad():
        model.weight.copy_(torch.randint(-3, 4, model.weight.shape, generator=torch.Generator().manual_seed(seed)))
    mask = n_of_m_mask(model, keep, of)["weight"]
    for weights, kept in zip(model.weight.detach().view(-1, of).tolist(), mask.view(-1, of).tolist(), strict=True):
        largest = sorted(range(of), key=lambda i: -abs(weights[i]))[:keep]
        assert [i for i, stays in enumerate(kept) if stays] == sorted(largest)


def test_convolutions_are_read_as_rows_of_outputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 3, 3), nn.Conv2d(3, 5, 3), nn.Linear(8, 2))
    mask = n_of_m_mask(model, 2, 4)
    assert mask["0.weight"].view(3, -1, 4).sum(-1).eq(2).all()  # 4 * 9 = 36 weights for each output
    assert mask["1.weight"].all()  # 3 * 9 = 27 is not divisible by 4
    assert mask["2.weight"].view(2, 2, 4).sum(-1).eq(2).all()
    assert mask["0.weight"].float().mean() == 0.5


def test_gpt2s_layers_are_grouped_along_their_inputs() -> None:
    mask = n_of_m_mask(tiny("gpt2"), 2, 4)
    name = "transformer.h.0.mlp.c_fc.weight"  # (inputs, outputs)
    assert mask[name].shape == (8, 32)
    assert mask[name].T.reshape(32, 2, 4).sum(-1).eq(2).all()


def test_scores_of_an_order_decide() -> None:
    model = nn.Linear(4, 1)
    order = Order("by hand", {"weight": torch.tensor([[0.0, 3.0, 1.0, 2.0]])})
    assert n_of_m_mask(model, 2, 4, order)["weight"].tolist() == [[False, True, False, True]]
    named = n_of_m_mask(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), 1, 2, names=["1.weight"])
    assert list(named) == ["1.weight"]


def test_rows_and_back() -> None:
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(2, 3, 2)
    model = nn.ModuleDict({"conv": nn.Conv2d(2, 3, 2), "up": up, "linear": nn.Linear(4, 5)})
    shapes = {"conv.weight": (3, 8), "up.weight": (3, 8), "linear.weight": (5, 4)}
    for name, w in prunable_weights(model).items():
        rows = as_rows(model, name, w.detach())
        assert rows.shape == shapes[name]
        assert torch.equal(from_rows(model, name, rows, w.shape), w.detach())
    assert torch.equal(as_rows(model, "up.weight", up.weight.detach())[1, :4], up.weight[0, 1].detach().flatten())


@pytest.mark.parametrize(("keep", "of"), [(0, 4), (5, 4), (-1, 2)])
def test_patterns_that_are_none(keep: int, of: int) -> None:
    with pytest.raises(InputError, match=f"{keep}:{of} is not a pattern"):
        n_of_m_mask(nn.Linear(4, 4), keep, of)


def test_an_order_of_another_model() -> None:
    with pytest.raises(InputError, match="scores of shape"):
        n_of_m_mask(nn.Linear(4, 8), 2, 4, rank(nn.Linear(4, 4), "magnitude"))
