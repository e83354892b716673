import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import howsparse
import howsparse.risk
from howsparse import InputError, pruning_limit
from howsparse.risk.batches import split_batch
from howsparse.risk.empirical import EmpiricalRisk
from networks_for_tests import convnet_case, mlp_case


def test_the_model_comes_back_as_it_went_in() -> None:
    model, batches = convnet_case()
    model.train()
    model[4].eval()  # type: ignore[index]
    model[1].weight.requires_grad_(False)  # type: ignore[index]
    model[0].weight.grad = torch.ones_like(model[0].weight)  # type: ignore[index]
    parameters = dict(model.named_parameters())
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    random = torch.get_rng_state()
    pruning_limit(model, batches, tolerance=0.01, max_products=32)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p is parameters[name] for name, p in model.named_parameters())
    assert [p.requires_grad for p in parameters.values()] == [True, True, False, True, True, True]
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))  # type: ignore[index]
    assert all(p.grad is None for name, p in parameters.items() if name != "0.weight")


def test_the_model_comes_back_when_a_batch_fails() -> None:
    model, batches = mlp_case()
    parameters = dict(model.named_parameters())
    wrong = [*batches, (torch.zeros(3, 4), torch.zeros(3, dtype=torch.long))]
    with pytest.raises(RuntimeError):
        EmpiricalRisk(model, wrong).gradient()
    assert all(p is parameters[name] for name, p in model.named_parameters())
    assert model.training


def test_buffers_a_model_writes_in_evaluation_are_put_back() -> None:
    class Counter(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.calls: Tensor
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x)

    model = Counter()
    EmpiricalRisk(model, [(torch.eye(2), torch.arange(2))]).gradient()
    assert model.calls == 0


def test_gradient_is_autograds() -> None:
    model, batches = mlp_case()
    risk = EmpiricalRisk(model, batches)
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    nn.functional.cross_entropy(model(inputs), targets).backward()
    expected = torch.cat([model[i].weight.grad.flatten() for i in (0, 2)])  # type: ignore[index]
    assert torch.allclose(risk.gradient(), expected, atol=1e-14)


def test_batch_losses_do_not_depend_on_the_batch_size() -> None:
    model, batches = mlp_case(examples=64)
    large = [(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))]
    small = EmpiricalRisk(model, batches).batch_losses(16)
    assert len(small) == 4
    assert torch.allclose(small, EmpiricalRisk(model, large).batch_losses(16))


def test_a_short_last_batch_does_not_count_towards_the_tolerance() -> None:
    model, batches = mlp_case(examples=40)
    assert [len(y) for _, y in batches] == [16, 16, 8]
    assert len(EmpiricalRisk(model, batches).batch_losses(16)) == 2


def test_split_batch_cuts_every_tensor_of_a_mapping() -> None:
    pieces = split_batch({"x": torch.arange(5), "labels": torch.arange(5)}, 2)
    assert [piece["x"].tolist() for piece in pieces] == [[0, 1], [2, 3], [4]]
    odd = (torch.arange(5), torch.arange(3))
    assert split_batch(odd, 2)[0] is odd


def fails(match: str, model: nn.Module, batches: object, **options: object) -> None:
    with pytest.raises(InputError, match=match) as caught:
        EmpiricalRisk(model, batches, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_every_bad_input_has_its_line() -> None:
    model, batches = mlp_case()
    fails("no prunable weights", nn.BatchNorm1d(5), batches)
    fails("every prunable weight is frozen", mlp_case()[0].requires_grad_(False), batches)
    fails("batches is empty", model, [])
    fails("read only once", model, iter(batches))
    fails("read only once", model, (batch for batch in batches))
    fails("no parameter '0.wait'; its prunable weights: 0.weight, 2.weight", model, batches, names=["0.wait"])
    fails(r"tensor of shape \(16,\), not a scalar", model, batches, loss=lambda m, b: m(b[0]).sum(1))
    fails("the loss is float, not a scalar", model, batches, loss=lambda m, b: 1.0)
    fails("does not depend on the weights", model, batches, loss=lambda m, b: b[0].sum())
    fails("pass a loss", model, [torch.zeros(2, 5)])

    broken, _ = mlp_case()
    with torch.no_grad():
        broken[2].weight[0, 0] = float("nan")  # type: ignore[index]
    fails("'2.weight' has NaN", broken, batches)

    class Dropping(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(super().forward(x), 0.5)

    fails("changes from call to call", Dropping(5, 3), [(x.float(), y) for x, y in batches])

    complex_one = nn.Linear(5, 3)
    complex_one.weight = nn.Parameter(complex_one.weight.detach().to(torch.complex64))
    fails("weight 'weight' is complex", complex_one, batches)

    frozen_one, _ = mlp_case()
    frozen_one[0].weight.requires_grad_(False)  # type: ignore[index]
    assert EmpiricalRisk(frozen_one, batches).names == ["2.weight"]
    assert EmpiricalRisk(frozen_one, batches, names=["0.weight"]).names == ["0.weight"]


def test_an_example_whose_label_does_not_count_is_no_example() -> None:
    """Neither in the loss nor in a number of examples: the answer is that of data without it."""
    model, batches = mlp_case()
    unlabelled = [(x, torch.where(torch.arange(len(y)) % 4 == 0, -100, y)) for x, y in batches]
    without = [(x[y != -100], y[y != -100]) for x, y in unlabelled]
    risk, plain = EmpiricalRisk(model, unlabelled), EmpiricalRisk(model, without)
    assert (risk.num_examples, plain.num_examples) == (30, 30)
    assert risk.lengths == [16, 16, 8]
    torch.testing.assert_close(risk.gradient(), plain.gradient())
    problem = howsparse.Problem(lambda: model, train=unlabelled, test=unlabelled, epochs=1)
    assert problem.num_examples == 30
    options: dict[str, Any] = {"max_products": 32, "tolerance": 0.05, "progress": False}
    whole = howsparse.pruning_limit(model, unlabelled, population=30, **options)
    assert whole.errors.data == 0.0  # these are all examples, so nothing is widened


def test_a_data_loader_can_be_read_again() -> None:
    model, batches = mlp_case()
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, targets), batch_size=16)
    assert torch.equal(EmpiricalRisk(model, loader).gradient(), EmpiricalRisk(model, batches).gradient())


def test_a_generator_function_wrapped_to_restart_is_enough() -> None:
    model, batches = mlp_case()

    class Restarting:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            yield from batches

    assert EmpiricalRisk(model, Restarting()).num_examples == 40


@pytest.mark.parametrize("chance", ["shuffled", "augmented"])
def test_batches_that_differ_from_pass_to_pass_are_refused(chance: str) -> None:
    model, batches = mlp_case()
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])

    class Noisy(torch.utils.data.TensorDataset):
        def __getitem__(self, index: int) -> tuple[Tensor, ...]:
            x, y = super().__getitem__(index)  # type: ignore[no-untyped-call]
            return x + torch.randn(x.shape, dtype=x.dtype), y

    kind = Noisy if chance == "augmented" else torch.utils.data.TensorDataset
    loader = torch.utils.data.DataLoader(kind(x, y), 16, shuffle=chance == "shuffled")
    with pytest.raises(InputError, match=r"batches differ from pass to pass.* pass howsparse.SamePasses\(loader\)"):
        EmpiricalRisk(model, loader)
    first, again = (EmpiricalRisk(model, howsparse.SamePasses(loader)).gradient() for _ in range(2))
    assert torch.equal(first, again)


class Named(NamedTuple):
    x: Tensor
    y: Tensor


def test_named_tuples_are_batches() -> None:
    model, batches = mlp_case()
    named = EmpiricalRisk(model, [Named(x, y) for x, y in batches])
    plain = EmpiricalRisk(model, batches)
    assert torch.equal(named.gradient(), plain.gradient())
    assert torch.equal(named.batch_losses(8), plain.batch_losses(8))


def test_losses_of_torch_are_losses() -> None:
    model, batches = mlp_case()
    plain = EmpiricalRisk(model, batches).gradient()
    assert torch.equal(EmpiricalRisk(model, batches, nn.CrossEntropyLoss()).gradient(), plain)
    smoothed = EmpiricalRisk(model, batches, nn.CrossEntropyLoss(label_smoothing=0.1))
    total = sum(nn.functional.cross_entropy(model(x), y, label_smoothing=0.1, reduction="sum") for x, y in batches)
    assert isinstance(total, Tensor)
    exact = torch.autograd.grad(total / smoothed.num_examples, [p for p in model.parameters() if p.ndim > 1])
    torch.testing.assert_close(smoothed.gradient(), torch.cat([part.flatten() for part in exact]))
    assert howsparse.risk.GGN(smoothed).shape == (56, 56)
    measured = howsparse.measure(model, batches, tolerance=0.1, loss=nn.CrossEntropyLoss())
    assert measured.dense.accuracy is not None
