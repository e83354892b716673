"""Products of convolutional networks, whose derivatives are not torch's."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from howsparse import Mask, prune
from howsparse.linalg.operators import Operator
from howsparse.risk.convolutions import _SINCE, Convolutions, suitable
from howsparse.risk.curvature import GGN, Hessian
from howsparse.risk.derivatives import convolved
from howsparse.risk.empirical import EmpiricalRisk
from networks_for_tests import Batches, exact_curvature

pytestmark = pytest.mark.skipif(
    tuple(int(part) for part in torch.__version__.split(".")[:2]) < _SINCE,
    reason="derivatives of our own for convolutions need a later torch",
)

KINDS = [("hessian", Hessian), ("ggn", GGN)]


class Residual(nn.Module):
    """A block with a skip connection around two convolutions, whose first output is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3)
        self.second, self.after = nn.Conv2d(3, 3, 3, padding="same", bias=False), nn.BatchNorm2d(3, affine=False)
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        raw = self.first(x)
        y = functional.relu(self.norm(raw))
        z = torch.relu(self.after(self.second(y)) + raw)
        out: Tensor = self.head((y + z).mean((2, 3)))
        return out


class Twice(nn.Module):
    """One convolution that is used twice, and a weight that is shared between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.other = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=2, dilation=2)
        self.other.weight = self.same.weight
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.other(torch.tanh(self.same(torch.tanh(self.same(x))))).mean((2, 3)))
        return out


class Written(nn.Module):
    """The output of the convolution is changed in place before the normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.conv(x).mul_(2.0).add_(1.0)).relu_().mean((2, 3)))
        return out


def bent(layer: nn.Module) -> nn.Module:
    """The layer with a weight that is not linear in its parameter."""
    return parametrize.register_parametrization(layer, "weight", nn.Tanh())


def network(*layers: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "normalised": lambda: network(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 2), width=2),
    "normalised before": lambda: network(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.Tanh(), width=3),
    "its own statistics": lambda: network(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False), nn.Tanh(), width=3
    ),
    "groups, strides, dilation": lambda: network(
        nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 2), groups=2), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding="same", dilation=(2, 1), groups=4, padding_mode="reflect"), nn.BatchNorm2d(4),
        nn.ReLU(inplace=True), width=4,
    ),
    "uneven padding": lambda: network(nn.Conv2d(2, 3, 2, padding="same"), nn.Tanh(), nn.Conv2d(3, 3, 2), width=3),
    "not square": lambda: network(nn.Conv2d(2, 3, (1, 3), padding="valid"), nn.Sigmoid(), width=3),
    "residual": Residual,
    "twice": Twice,
    "written": Written,
    "parametrized": lambda: network(
        bent(nn.Conv2d(2, 3, 3)), nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 3, 2), width=3
    ),
}  # fmt: skip


def case(name: str) -> tuple[nn.Module, Batches]:
    """A network in float64 with running statistics that are not those of the data."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETWORKS[name]().double()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.normal_()
                assert module.running_var is not None
                module.running_var.uniform_(0.5, 2.0)
                if module.affine:
                    module.weight.data.normal_()
                    module.bias.data.normal_()
        inputs, targets = torch.randn(7, 2, 5, 5, dtype=torch.float64), torch.randint(3, (7,))
    return model, list(zip(inputs.split(4), targets.split(4), strict=True))


def dense(operator: Operator) -> Tensor:
    return operator @ torch.eye(operator.shape[0], dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("memory", [0, None], ids=["streamed", "kept"])
@pytest.mark.parametrize("name", NETWORKS)
def test_products_against_the_dense_matrices(name: str, memory: int | None) -> None:
    model, batches = case(name)
    studied = [name for name, p in model.named_parameters() if p.ndim > 1]
    if name == "its own statistics":  # they are a batch's
        batches = batches[:1]
    for kind, make in KINDS:
        operator = make(EmpiricalRisk(model, batches, names=studied), memory)
        assert isinstance(operator._convolutions, Convolutions)
        expected = exact_curvature(model, batches, kind, studied)
        assert torch.allclose(dense(operator), expected, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", NETWORKS)
def test_products_by_all_parameters(name: str) -> None:
    """Biases, and the factors of normalisations, which are then no longer fixed."""
    model, batches = case(name)
    names = [name for name, _ in model.named_parameters()]
    for kind, make in KINDS:
        operator = make(EmpiricalRisk(model, batches[:1], names=names))
        assert operator._convolutions is not None
        assert torch.allclose(dense(operator), exact_curvature(model, batches[:1], kind, names), atol=1e-12)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_signals_and_volumes(dimensions: int) -> None:
    conv, norm = (nn.Conv1d, nn.BatchNorm1d) if dimensions == 1 else (nn.Conv3d, nn.BatchNorm3d)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: list[nn.Module] = [conv(2, 3, 2, padding=1), norm(3), nn.ReLU(), conv(3, 2, 2), nn.Flatten()]
        model = nn.Sequential(*layers, nn.Linear(2 * 3**dimensions, 3)).double()
        batches = [(torch.randn(4, 2, *[3] * dimensions, dtype=torch.float64), torch.arange(4) % 3)]
    for kind, make in KINDS:
        operator = make(EmpiricalRisk(model, batches))
        assert operator._convolutions is not None
        assert torch.allclose(dense(operator), exact_curvature(model, batches, kind), atol=1e-12)


@pytest.mark.parametrize("name", ["normalised", "groups, strides, dilation", "residual"])
@pytest.mark.parametrize("make", [Hessian, GGN])
def test_in_float32_channels_are_last_and_products_symmetric(name: str, make: Any) -> None:
    model, batches = case(name)
    model, batches = model.float(), [(x.float(), y) for x, y in batches]
    operator = make(EmpiricalRisk(model, batches))
    assert operator._convolutions._last
    plain = make(EmpiricalRisk(model, batches))
    plain._convolutions = None
    generator = torch.Generator().manual_seed(1)
    v, w = torch.randn(2, operator.shape[0], generator=generator)
    found, expected = operator @ v, plain @ v
    assert float((found - expected).norm()) < 1e-5 * float(expected.norm())
    assert float(w @ found) == pytest.approx(float(v @ (operator @ w)), rel=1e-4)
    assert torch.equal(found, make(EmpiricalRisk(model, batches)) @ v)


def test_pruned_weights_are_not_under_study() -> None:
    model, batches = case("normalised")
    kept = torch.rand(3, 2, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    bare, _ = case("normalised")
    with torch.no_grad():
        bare[0].weight.mul_(kept)  # type: ignore[index]
    prune(model, Mask({"0.weight": kept}))
    operator = Hessian(EmpiricalRisk(model, batches))
    assert operator._convolutions is not None
    expected = exact_curvature(bare, batches)
    alive = torch.cat([kept.flatten(), torch.ones(len(expected) - kept.numel(), dtype=torch.bool)])
    assert torch.allclose(dense(operator), expected[alive][:, alive], atol=1e-12)


class Viewing(nn.Module):
    """It works with channels first only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 3, 3), nn.Linear(27, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.conv(x)).view(len(x), -1))
        return out


class Strided(nn.Module):
    """It reads memory as if channels were first, which fails with no error."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 3, 3), nn.Linear(27, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.conv(x)).as_strided((len(x), 27), (27, 1)))
        return out


class Force(nn.Module):
    """Its output is a derivative by its input, so that products need a third derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 3, 3), nn.Linear(50, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = torch.tanh(self.conv(x)).square().sum()
            (force,) = torch.autograd.grad(energy, x, create_graph=True)
        out: Tensor = self.head(force.flatten(1))
        return out


class Mapped(nn.Module):
    """Its convolution is inside a transform of `torch.func`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 3, 3), nn.Linear(27, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.vmap(lambda one: torch.tanh(self.conv(one[None]))[0])(x).flatten(1))
        return out


@pytest.mark.parametrize("kind", [Viewing, Strided, Force, Mapped])
@pytest.mark.parametrize("make", [Hessian, GGN])
def test_networks_that_fail_with_a_way_have_the_next(kind: Callable[[], nn.Module], make: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, batches = kind(), [(torch.randn(5, 2, 5, 5), torch.arange(5) % 3)]
    operator = make(EmpiricalRisk(model, batches))
    v = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(0))
    double = make(EmpiricalRisk(model.double(), [(x.double(), y) for x, y in batches]))
    double._convolutions = None
    assert operator._convolutions is None or not operator._convolutions._last
    assert torch.allclose(operator @ v, (double @ v.double()).float(), atol=1e-5)


def test_only_convolutional_networks_are_tried() -> None:
    assert suitable(nn.Linear(2, 2), torch.device("cpu"), torch.float32) == []
    assert len(suitable(nn.Conv2d(1, 1, 1), torch.device("cpu"), torch.float32)) == 2
    assert len(suitable(nn.Conv1d(1, 1, 1), torch.device("cpu"), torch.float32)) == 1


def test_graphs_are_freed_with_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs: list[weakref.ref[Tensor]] = []

    def remembering(*args: Any) -> Tensor:
        out = convolved(*args)
        outputs.append(weakref.ref(args[0]))
        return out

    monkeypatch.setattr("howsparse.risk.convolutions.convolved", remembering)
    model, batches = case("residual")
    operator = Hessian(EmpiricalRisk(model, batches))
    assert operator.num_kept == 2
    fixed = {id(x) for x, _ in batches}
    del operator
    gc.collect()
    assert outputs
    assert not [x for x in (ref() for ref in outputs) if x is not None and id(x) not in fixed]
