import pytest
import torch
from torch import Tensor, nn

from howsparse import InputError
from howsparse.linalg.operators import Block, Operator
from howsparse.risk.curvature import GGN, Hessian, Sample
from howsparse.risk.empirical import EmpiricalRisk
from networks_for_tests import Batches, convnet_case, exact_curvature, mlp_case


def dense(operator: Operator) -> Tensor:
    return operator @ torch.eye(operator.shape[0], dtype=torch.float64)


@pytest.mark.parametrize("case", [mlp_case, convnet_case])
@pytest.mark.parametrize("memory", [0, 40_000, None], ids=["streamed", "some kept", "all kept"])
def test_products_against_the_dense_matrices(case: object, memory: int | None) -> None:
    model, batches = case()  # type: ignore[operator]
    for kind, make in (("hessian", Hessian), ("ggn", GGN)):
        operator = make(EmpiricalRisk(model, batches), memory)
        expected = exact_curvature(model, batches, kind)
        assert torch.allclose(dense(operator), expected, atol=1e-12)
        if memory == 0:
            assert operator.num_kept == 0
        if memory is None:
            assert operator.num_kept == len(batches)


def test_memory_bounds_what_is_kept() -> None:
    model, batches = mlp_case(examples=64)
    kept = [Hessian(EmpiricalRisk(model, batches), memory).num_kept for memory in (0, 10_000, 20_000, 1 << 30)]
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert 0 < kept[1] < 4
    assert kept[-1] == 4


def test_a_loss_that_is_not_split_has_a_hessian_but_no_ggn() -> None:
    model, batches = mlp_case()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    risk = EmpiricalRisk(model, batches, loss)
    assert torch.allclose(dense(Hessian(risk)), exact_curvature(model, batches), atol=1e-12)
    with pytest.raises(InputError, match="curvature='ggn' needs a loss in two parts"):
        GGN(risk)


@pytest.mark.parametrize("positions", [1, 2])
def test_rank_bound_of_the_ggn_is_met_by_a_linear_model(positions: int) -> None:
    """Examples in general position, fewer than weights: every one adds classes - 1 directions for each distribution."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(20, 4 * positions, bias=False).double()
    inputs = torch.randn(5, 20, generator=generator, dtype=torch.float64)
    shape = (5,) if positions == 1 else (5, positions)
    shaped = nn.Sequential(model, nn.Unflatten(1, (4, *shape[1:])))
    operator = GGN(EmpiricalRisk(shaped, [(inputs, torch.randint(4, shape, generator=generator))]))
    eigenvalues = torch.linalg.eigvalsh(dense(operator))
    assert int((eigenvalues > 1e-12).sum()) == operator.rank_bound == 5 * 3 * positions


def test_a_weight_the_loss_is_linear_in_has_zero_rows() -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bent, self.straight = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.bent(x) ** 2 + self.straight(x)  # type: ignore[no-any-return]

    batches = [(torch.eye(2), torch.zeros(2))]
    operator = Hessian(EmpiricalRisk(Linear(), batches, lambda model, batch: model(batch[0]).mean()))
    matrix = torch.stack([operator @ unit for unit in torch.eye(4)])
    assert torch.equal(matrix, torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0])))


def test_subset_of_weights_is_a_block_of_the_whole() -> None:
    model, batches = mlp_case()
    whole = exact_curvature(model, batches)
    part = Hessian(EmpiricalRisk(model, batches, names=["2.weight"]))
    assert torch.allclose(dense(part), whole[35:, 35:], atol=1e-12)
    chosen = torch.rand(56, generator=torch.Generator().manual_seed(0)) < 0.5
    block = Block(Hessian(EmpiricalRisk(model, batches)), chosen)
    assert torch.allclose(dense(block), whole[chosen][:, chosen], atol=1e-12)


def test_pruned_weights_are_not_under_study() -> None:
    from howsparse import Mask, prune

    model, batches = mlp_case()
    kept = torch.rand(7, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    bare, _ = mlp_case()
    with torch.no_grad():
        bare[0].weight.mul_(kept)  # type: ignore[index]
    prune(model, Mask({"0.weight": kept}))
    operator = Hessian(EmpiricalRisk(model, batches))
    alive = torch.cat([kept.flatten(), torch.ones(21, dtype=torch.bool)])
    assert operator.shape[0] == int(alive.sum())
    assert torch.allclose(dense(operator), exact_curvature(bare, batches)[alive][:, alive], atol=1e-12)


def test_ragged_batches_weigh_by_their_examples() -> None:
    model, batches = mlp_case()
    together: Batches = [(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))]
    ragged, whole = EmpiricalRisk(model, batches), EmpiricalRisk(model, together)
    assert len({len(y) for _, y in batches}) > 1
    assert torch.allclose(ragged.gradient(), whole.gradient(), atol=1e-14)
    assert torch.allclose(dense(Hessian(ragged)), dense(Hessian(whole)), atol=1e-13)


def test_shared_weight_is_studied_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False, dtype=torch.float64)
            self.second = nn.Linear(3, 3, bias=False, dtype=torch.float64)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.tanh(self.first(x)))  # type: ignore[no-any-return]

    model = Tied()
    inputs = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batches = [(inputs, torch.arange(6) % 3)]
    weight = model.first.weight.detach()

    def loss(w: Tensor) -> Tensor:
        return nn.functional.cross_entropy(torch.tanh(inputs @ w.view(3, 3).T) @ w.view(3, 3).T, batches[0][1])

    operator = Hessian(EmpiricalRisk(model, batches))
    assert operator.shape == (9, 9)
    assert torch.allclose(dense(operator), torch.func.hessian(loss)(weight.flatten()), atol=1e-12)


def test_attention_has_second_derivatives() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Flatten(), nn.Linear(12, 2)
        ).double()
        batches = [(torch.randn(5, 3, 4, dtype=torch.float64), torch.arange(5) % 2)]
    operator = Hessian(EmpiricalRisk(model, batches))
    v = torch.randn(operator.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(operator @ v, exact_curvature(model, batches) @ v, atol=1e-10)


@pytest.mark.parametrize("memory", [0, 10_000, None], ids=["streamed", "some kept", "all kept"])
def test_a_sample_is_the_matrix_over_the_first_batches(memory: int | None) -> None:
    model, batches = mlp_case(examples=64)
    whole = Hessian(EmpiricalRisk(model, batches), memory)
    expected = exact_curvature(model, batches[:3])
    assert torch.allclose(dense(Sample(whole, 3)), expected, atol=1e-12)
    assert whole.num_products == 0


@pytest.mark.parametrize("kind", [Hessian, GGN])
def test_a_part_of_the_data_counts_as_its_own_bytes(kind: type[Hessian] | type[GGN]) -> None:
    """A batch that is a view of all data does not bring the bytes of all data into the count."""
    model, data = nn.Sequential(nn.Linear(50, 8), nn.Tanh(), nn.Linear(8, 3)), torch.randn(1000, 50)
    labels = torch.arange(1000) % 3
    view, copy = (EmpiricalRisk(model, [(x, labels[:20])]) for x in (data[:20], data[:20].clone()))
    assert kind(view).graph_bytes() == kind(copy).graph_bytes()
