"""Orders against plain sorts and direct computations, on small networks and Hugging Face models."""

import copy
import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.pruning.masks import layerwise_mask, magnitude_mask, random_mask
from howsparse.pruning.orders import ORDERS, Order, rank
from howsparse.pruning.orders.erk import erdos_renyi_densities
from howsparse.pruning.orders.order import make_order
from howsparse.pruning.prune import prune
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.losses import Loss
from howsparse.risk.weights import prunable_weights, select_weights
from networks_for_tests import convnet_case, mlp_case
from pretrained_for_tests import batches_for, tiny

property_test = settings(deadline=None, max_examples=60)


def flat(mask: dict[str, Tensor]) -> list[bool]:
    kept: list[bool] = torch.cat([part.flatten() for part in mask.values()]).tolist()
    return kept


@given(
    st.lists(st.lists(st.integers(-2, 3), min_size=1, max_size=9), min_size=1, max_size=4),
    st.lists(st.integers(0, 99), min_size=2, max_size=5),
)
@property_test
def test_masks_of_an_order_are_a_stable_sort_exact_and_nested(values: list[list[int]], percents: list[int]) -> None:
    order = Order("any", {str(i): torch.tensor(part, dtype=torch.float32) for i, part in enumerate(values)})
    joined = [float(value) for part in values for value in part]
    by_score = sorted(range(len(joined)), key=lambda i: -joined[i])
    masks = [flat(order.mask(percent / 100)) for percent in sorted(percents)]
    for percent, mask in zip(sorted(percents), masks, strict=True):
        kept = by_score[: round((1 - percent / 100) * len(joined))]
        assert [i for i, stays in enumerate(mask) if stays] == sorted(kept)
    for small, large in pairwise(masks):
        assert all(before or not after for before, after in zip(small, large, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sparsity", [0.0, 0.123, 0.5, 0.99])
def test_magnitude_layerwise_and_random_orders_have_the_masks_of_their_functions(
    dtype: torch.dtype, sparsity: float
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 40)).to(dtype)
    assert flat(rank(model, "magnitude").mask(sparsity)) == flat(magnitude_mask(model, sparsity))
    assert flat(rank(model, "random", seed=3).mask(sparsity)) == flat(random_mask(model, sparsity, seed=3))
    if sparsity in (0.0, 0.5):  # where no layer's number of weights is rounded
        assert flat(rank(model, "layerwise").mask(sparsity)) == flat(layerwise_mask(model, sparsity))


def test_random_draws_are_those_of_every_version() -> None:
    assert random_mask(nn.Linear(5, 2), 0.5, seed=7)["weight"].flatten().nonzero().flatten().tolist() == [0, 2, 3, 7, 9]


layers = st.lists(
    st.one_of(
        st.builds(nn.Linear, st.integers(1, 12), st.integers(1, 12)),
        st.builds(nn.Conv2d, st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3])),
    ),
    min_size=1,
    max_size=5,
)


@given(layers, st.integers(0, 99))
@property_test
def test_erk_has_the_densities_of_the_direct_computation(modules: list[nn.Module], percent: int) -> None:
    model = nn.Sequential(*modules)
    mask, wanted = rank(model, "erk").mask(percent / 100), erdos_renyi_densities(model, percent / 100)
    for name, kept in mask.items():
        assert abs(int(kept.sum()) - wanted[name] * kept.numel()) <= (1 + len(mask)) / 2 + 1e-6
        sizes = prunable_weights(model)[name].detach().abs()
        if 0 < kept.sum() < kept.numel():
            assert sizes[kept].min() >= sizes[~kept].max()


def test_layerwise_has_the_same_density_everywhere_up_to_rounding() -> None:
    model = nn.Sequential(nn.Linear(7, 3), nn.Linear(11, 13), nn.Linear(2, 1))
    for percent in range(0, 100, 7):
        mask = rank(model, "layerwise").mask(percent / 100)
        assert mask.num_kept == round((1 - percent / 100) * mask.num_weights)
        for kept in mask.values():
            assert abs(int(kept.sum()) - (1 - percent / 100) * kept.numel()) <= (1 + len(mask)) / 2


def test_gradient_scores_are_those_of_autograd() -> None:
    model, batches = convnet_case()
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    model.eval()
    nn.functional.cross_entropy(model(inputs), targets).backward()
    order = rank(model.train(), "gradient", batches)
    for name, w in prunable_weights(model).items():
        assert w.grad is not None
        assert torch.allclose(order.scores[name], (w.grad * w).abs().detach(), atol=1e-12)


CASES = [(name, kind) for name in ORDERS for kind in ("convnet", "gpt2")]
CASES += [(name, kind) for name in ("curvature", "wanda", "wanda-row") for kind in ("bert", "llama")]


def case(name: str) -> tuple[nn.Module, list[Any]]:
    if name == "convnet":
        model, pairs = convnet_case()
        return model, list(pairs)
    return tiny(name), list(batches_for(name))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_order_on_every_kind_of_network(name: str, kind: str) -> None:
    model, batches = case(kind)
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    order = rank(model, name, batches, seed=1)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(p.grad is None for p in model.parameters())

    assert order.name == name
    assert order.note
    weights = prunable_weights(model)
    assert {key: score.shape for key, score in order.scores.items()} == {key: w.shape for key, w in weights.items()}
    mask = order.mask(0.5)
    assert mask.num_kept == round(0.5 * order.num_weights)
    assert 0 < mask.num_kept < mask.num_weights
    again = rank(model, name, batches, seed=1)
    assert all(torch.equal(score, again.scores[key]) for key, score in order.scores.items())


@pytest.mark.parametrize("name", ORDERS)
def test_weights_that_torch_has_pruned_go_first(name: str) -> None:
    model, batches = mlp_case()
    gone = random_mask(model, 0.4, seed=5)
    prune(model, gone)
    order = rank(model, name, batches)
    again = order.mask(gone.sparsity)
    assert flat(again) == flat(gone)
    beyond = order.mask(0.7)
    assert not any(now and not before for now, before in zip(flat(beyond), flat(gone), strict=True))


@pytest.mark.parametrize("name", ORDERS)
def test_names_restrict_an_order(name: str) -> None:
    model, batches = mlp_case()
    order = rank(model, name, batches, names=iter(["2.weight"]))
    assert list(order.scores) == ["2.weight"]
    assert order.mask(0.5).num_kept == round(order.num_weights / 2)


@pytest.mark.parametrize("name", ["curvature", "marginal", "wanda"])
def test_an_interrupted_order_leaves_the_model_as_it_was(name: str) -> None:
    model, batches = mlp_case()
    before = copy.deepcopy(model.state_dict())
    calls = 0

    class Stops:
        def __iter__(self) -> Any:
            nonlocal calls
            calls += 1
            if calls > 3:
                raise KeyboardInterrupt
            return iter(batches)

    with pytest.raises(KeyboardInterrupt):
        rank(model, name, Stops())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(module.training for module in model.modules())


def test_an_order_of_ones_own() -> None:
    model = nn.Linear(3, 2)

    def last_first(
        model: nn.Module, batches: Iterable[Any] | None, *, loss: Loss, names: Iterable[str] | None, seed: int
    ) -> Order:
        scores = {
            name: -torch.arange(w.numel()).view(w.shape).float() for name, w in select_weights(model, names).items()
        }
        return make_order("last first", model, scores, "by position")

    made = rank(model, last_first)
    assert flat(made.mask(0.5)) == [True, True, True, False, False, False]
    assert rank(model, made) is made
    assert "tensor" not in repr(made)


class TestErrors:
    def test_unknown_name(self) -> None:
        with pytest.raises(InputError, match="order 'size' is not known; use one of magnitude, layerwise, erk, curv"):
            rank(nn.Linear(2, 2), "size")

    @pytest.mark.parametrize("name", ["curvature", "wanda", "wanda-row", "gradient", "marginal"])
    def test_no_data(self, name: str) -> None:
        with pytest.raises(InputError, match=f"order '{name}' needs data; pass batches"):
            rank(nn.Linear(2, 2), name)

    @pytest.mark.parametrize("name", ["curvature", "wanda", "marginal"])
    def test_data_that_can_be_read_once(self, name: str) -> None:
        with pytest.raises(InputError, match="can be read only once"):
            rank(nn.Linear(2, 2), name, iter([(torch.eye(2), torch.tensor([0, 1]))]))

    def test_an_order_of_another_model(self) -> None:
        order = rank(nn.Sequential(nn.Linear(2, 2)), "magnitude")
        with pytest.raises(InputError, match=r"'0\.weight' is not a prunable weight"):
            rank(nn.Linear(2, 2), order)
        with pytest.raises(InputError, match=r"scores of shape \(2, 2\) for '0\.weight', but the weight has \(3, 2\)"):
            rank(nn.Sequential(nn.Linear(2, 3)), order)
        two = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        with pytest.raises(InputError, match=r"differ in '1\.weight'"):
            rank(two, order, names=["0.weight", "1.weight"])

    def test_scores_that_cannot_be_sorted(self) -> None:
        with pytest.raises(InputError, match="NaN scores for 'fc'"):
            Order("broken", {"fc": torch.tensor([1.0, math.nan])})
        with pytest.raises(InputError, match="has no scores"):
            Order("empty", {})

    @pytest.mark.parametrize("sparsity", [-0.1, 1.0, math.nan])
    def test_sparsity(self, sparsity: float) -> None:
        with pytest.raises(InputError, match=r"outside \[0, 1\)"):
            rank(nn.Linear(2, 2), "magnitude").mask(sparsity)

    def test_a_function_that_makes_no_order(self) -> None:
        def wrong(model: nn.Module, batches: Any, *, loss: Loss, names: Any, seed: int) -> Any:
            return "magnitude"

        with pytest.raises(InputError, match="returned str; return a howsparse Order"):
            rank(nn.Linear(2, 2), wrong)

    def test_a_loss_without_a_ggn(self) -> None:
        model, batches = mlp_case()

        def whole(model: nn.Module, batch: Any) -> Tensor:
            return nn.functional.cross_entropy(model(batch[0]), batch[1])

        with pytest.raises(InputError, match="loss in two parts"):
            rank(model, "curvature", batches, loss=whole)
        assert rank(model, "marginal", batches, loss=whole).note.startswith("gradient at 20 pruned networks")
        assert EmpiricalRisk(model, batches, whole).num_examples == 40
