"""What a limit will cost: counted exactly with a clock that counts the examples that the model sees."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from howsparse import InputError, LimitOptions, limit_cost, pruning_limit
from howsparse.limit.cost import LimitCost
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


def taken(cost: LimitCost, steps: dict[str, int]) -> LimitCost:
    return replace(cost, parts=tuple(replace(part, steps=steps.get(part.name, part.steps)) for part in cost.parts))


@pytest.mark.parametrize("memory", [0, 1 << 30], ids=["graphs built each time", "graphs kept"])
@pytest.mark.parametrize("population", [None, 10 * EXAMPLES], ids=["all data", "sample"])
@pytest.mark.parametrize("curvature", get_args(Curvature))
def test_counts_every_pass_over_the_data(
    model: Counting, batches: Batches, memory: int, population: int | None, curvature: Curvature
) -> None:
    options = replace(FEW, population=population, curvature=curvature)
    cost = limit_cost(model, batches, options=options, memory=memory, clock=model.clock)
    steps: dict[str, int] = {}
    before = model.seen
    pruning_limit(
        model, batches, options=options, memory=memory, progress=lambda name, done, total: steps.update({name: done})
    )
    seen = model.seen - before
    # The given tolerance saves one pass. Checks of the data read the first batch a few times. Of the prediction's
    # steps, one or two need no product, because they have it already.
    counted = taken(cost, steps).seconds - EXAMPLES
    assert counted == pytest.approx(seen, abs=6 * BATCH if memory else 6 * BATCH + 2 * EXAMPLES)


def test_parts_have_the_steps_that_the_limit_reports(model: Counting, batches: Batches) -> None:
    options = replace(FEW, population=10 * EXAMPLES)
    totals: dict[str, int] = {}
    limit = pruning_limit(
        model, batches, options=options, progress=lambda name, done, total: totals.update({name: total})
    )
    cost = limit_cost(model, batches, options=options)
    planned = {part.name: part.steps for part in cost.parts}
    assert {name: planned[name] for name in totals} == totals
    assert limit.num_products <= cost.products


def test_memory_is_that_of_graphs_and_lanczos_vectors(model: Counting, batches: Batches) -> None:
    """Twice the products store more vectors; without room for graphs, only those of one batch at a time remain."""
    few, more = (limit_cost(model, batches, options=replace(FEW, max_products=n)) for n in (48, 96))
    vectors = {part.name: part.steps * part.step_bytes for part in more.parts}
    before = {part.name: part.steps * part.step_bytes for part in few.parts}
    numbers = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    steps = [next(part.steps for part in cost.parts if part.name == "bracket") for cost in (few, more)]
    assert vectors["bracket"] - before["bracket"] == (steps[1] - steps[0]) * numbers * 4
    streamed = limit_cost(model, batches, options=FEW, memory=0)
    kept = [next(part.bytes for part in cost.parts if part.name == "bracket") for cost in (few, streamed)]
    assert kept[0] - kept[1] == pytest.approx((len(batches) - 2) * BATCH * few.example, rel=0.01)


def test_refuses_what_does_not_fit_and_names_batches_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    one = [(torch.randn(256, 3, 64, 64), torch.arange(256) % 10)]
    options = LimitOptions(max_products=32)
    limit_cost(model, one, options=options).check()
    least = limit_cost(model, Pieces(one, 1), options=options).bytes
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
