"""What a limit will cost: counted exactly with a clock that counts the examples that the model sees."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from howsparse import InputError, LimitOptions, limit_cost, pruning_limit
from howsparse.limit.budget import plan_budget
from howsparse.limit.options import Curvature
from howsparse.risk.batches import Pieces
from networks_for_tests import Batches

FEW = LimitOptions(max_products=48, precision=1e-9, tolerance=0.05)
EXAMPLES, BATCH = 120, 24


class Counting(nn.Module):
    """A network that counts the examples that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.layers = nn.Sequential(nn.Linear(20, 60), nn.Tanh(), nn.Linear(60, 60), nn.Tanh(), nn.Linear(60, 5))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        found: Tensor = self.layers(x)
        return found

    def clock(self) -> float:
        return float(self.seen)


@pytest.fixture
def model() -> Counting:
    torch.manual_seed(0)
    return Counting()


@pytest.fixture
def batches() -> Batches:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(EXAMPLES, 20, generator=generator), torch.randint(0, 5, (EXAMPLES,), generator=generator)
    return list(zip(x.split(BATCH), y.split(BATCH), strict=True))


@pytest.mark.parametrize("memory", [0, 1 << 30], ids=["graphs built each time", "graphs kept"])
@pytest.mark.parametrize("population", [None, 10 * EXAMPLES], ids=["all data", "sample"])
@pytest.mark.parametrize("curvature", get_args(Curvature))
def test_counts_every_pass_over_the_data(
    model: Counting, batches: Batches, memory: int, population: int | None, curvature: Curvature
) -> None:
    """With this clock, a second is an example that the model sees."""
    options = replace(FEW, population=population, curvature=curvature)
    cost = limit_cost(model, batches, options=options, memory=memory, clock=model.clock)
    before = model.seen
    limit = pruning_limit(model, batches, options=options, memory=memory)
    seen = model.seen - before
    # The given tolerance saves one pass. Checks of the data read the first batch a few times. A product over half of
    # the data, of five batches, reads two.
    counted = replace(cost, products=limit.num_products).seconds - EXAMPLES
    assert counted == pytest.approx(seen, abs=6 * BATCH if memory else 6 * BATCH + 2 * EXAMPLES)


def test_says_the_largest_number_of_products(model: Counting, batches: Batches) -> None:
    options = replace(FEW, population=10 * EXAMPLES)
    assert pruning_limit(model, batches, options=options).num_products <= limit_cost(model, batches).products == 400
    assert limit_cost(model, batches, options=options).products == 48


def test_products_are_fewer_if_memory_stores_fewer_lanczos_vectors(
    model: Counting, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("howsparse.limit.budget.available_memory", lambda device: 300_000)
    limit = pruning_limit(model, batches, options=FEW)
    cost = limit_cost(model, batches, options=FEW)
    assert limit.stopped == "memory"
    assert limit.num_products <= cost.products < 48
    assert cost.vectors == limit.spectrum.num_steps * limit.num_weights * 2


def test_memory_is_that_of_graphs_and_lanczos_vectors(model: Counting, batches: Batches) -> None:
    """Twice the products store more vectors; without room for graphs, only those of one batch at a time remain."""
    few, more = (limit_cost(model, batches, options=replace(FEW, max_products=n)) for n in (48, 96))
    planned = [plan_budget(n, 1, sampled=False).bracket for n in (48, 96)]
    numbers = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert more.vectors - few.vectors == (planned[1] - planned[0]) * numbers * 4
    streamed = limit_cost(model, batches, options=FEW, memory=0)
    assert few.graphs - streamed.graphs == pytest.approx((len(batches) - 1) * BATCH * few.example, rel=0.01)
    assert few.weights == pytest.approx(streamed.weights, rel=0.2)


def test_refuses_what_does_not_fit_and_names_batches_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    one = [(torch.randn(256, 3, 64, 64), torch.arange(256) % 10)]
    options = LimitOptions(max_products=32)
    limit_cost(model, one, options=options).check()
    least = limit_cost(model, Pieces(one, 1), options=options, memory=0).bytes
    monkeypatch.setattr("howsparse.limit.cost.available_memory", lambda device: 2 * least)
    with pytest.raises(InputError, match=r"the limit needs .* are free; use batches of \d+ examples") as refused:
        limit_cost(model, one, options=options).check()
    size = int(str(refused.value).split("batches of ")[1].split()[0])
    limit_cost(model, Pieces(one, size), options=options).check()
    monkeypatch.setattr("howsparse.limit.cost.available_memory", lambda device: 1 << 20)
    with pytest.raises(InputError, match="free some memory"):
        limit_cost(model, one, options=options).check()


def test_the_model_stays_as_it_is(model: Counting, batches: Batches) -> None:
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    limit_cost(model, batches, options=FEW)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_small_sample_costs_less_than_all_examples() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(20_000, 5, generator=generator), torch.randint(3, (20_000,), generator=generator)
    model, batches = nn.Linear(5, 3), list(zip(inputs.split(1000), targets.split(1000), strict=True))
    whole = limit_cost(model, batches, options=LimitOptions(max_products=200))
    sample = limit_cost(model, batches, options=LimitOptions(max_products=200, sample=1000))
    assert 4 * sample.graphs < whole.graphs  # of 4,000 examples in place of 20,000, and of a batch
    assert sample.products == whole.products == 200
