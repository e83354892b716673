"""The diagonal of the GGN against the whole matrix in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.pruning.orders import rank
from howsparse.pruning.orders.diagonal import ggn_diagonal
from howsparse.risk.curvature import GGN
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.risk.weights import prunable_weights
from networks_for_tests import convnet_case, exact_curvature, mlp_case
from pretrained_for_tests import batches_for, tiny


def relative(found: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.norm(found - expected) / torch.linalg.norm(expected))


def of_ggn(risk: EmpiricalRisk) -> Tensor:
    """From products with every unit vector."""
    return (GGN(risk) @ torch.eye(risk.num_weights, dtype=torch.float64)).diagonal()


@pytest.mark.parametrize("make", [mlp_case, convnet_case])
def test_exact_diagonal_is_that_of_the_dense_matrix(make: Callable[[], tuple[nn.Module, Any]]) -> None:
    model, batches = make()
    found = ggn_diagonal(EmpiricalRisk(model, batches))
    assert relative(found.values, exact_curvature(model, batches, "ggn").diagonal()) < 1e-9
    assert found.note.startswith("exact diagonal from per-example gradients")


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "text", "tokens"])
def test_exact_diagonal_of_transformers_with_tied_weights_and_ignored_labels(kind: str) -> None:
    model, batches = tiny(kind), batches_for(kind)
    names = [name for name, w in prunable_weights(model).items() if w.numel() < 200]
    names = [names[0], names[-1]]  # the first is the embedding, which is also the output layer where these are tied
    risk = EmpiricalRisk(model, batches, names=names)
    found = ggn_diagonal(risk)
    assert found.note.startswith("exact")
    assert relative(found.values, of_ggn(risk)) < 1e-6  # Llama's rotations are float32 in a float64 model


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.lstm = nn.MultiheadAttention(3, 1, batch_first=True), nn.LSTM(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(self.attention(x, x, x)[0])[0][:, -1]  # type: ignore[no-any-return]


def test_exact_diagonal_of_attention_and_recurrent_layers() -> None:
    torch.manual_seed(0)
    model = Recurrent().double()
    batches = [(torch.randn(5, 4, 3, dtype=torch.float64), torch.arange(5) % 3) for _ in range(2)]
    risk = EmpiricalRisk(model, batches)
    assert relative(ggn_diagonal(risk).values, of_ggn(risk)) < 1e-9


class Squared:
    """Half the squared error, a loss that is a sum over outputs; its GGN is the mean of J'J."""

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        return self.of_output(self.output(model, batch), batch)

    def output(self, model: nn.Module, batch: Any) -> Tensor:
        out: Tensor = model(batch[0])
        return out

    def of_output(self, output: Tensor, batch: Any) -> Tensor:
        return output.square().sum(1).mean() / 2


@pytest.mark.parametrize("loss", [cross_entropy, Squared()])
def test_sampled_diagonal_is_unbiased(loss: Loss) -> None:
    model, batches = mlp_case(examples=12)
    risk = EmpiricalRisk(model, batches, loss)
    exact = of_ggn(risk)
    draws = torch.stack([ggn_diagonal(risk, exact_up_to=0, draws=10, seed=seed).values for seed in range(30)])
    error = draws.std(0) / len(draws) ** 0.5  # of the mean of 30 independent estimates
    assert relative(draws[0], exact) > 1e-3
    assert ((draws.mean(0) - exact).abs() <= 4.5 * error + 1e-12).all()
    assert relative(draws.mean(0), exact) < 0.1


def test_sampled_diagonal_of_a_language_model_is_unbiased() -> None:
    model, batches = tiny("llama"), batches_for("llama")
    risk = EmpiricalRisk(model, batches, names=["model.layers.0.self_attn.v_proj.weight"])
    exact = of_ggn(risk)
    draws = torch.stack([ggn_diagonal(risk, exact_up_to=0, draws=20, seed=seed).values for seed in range(20)])
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - exact).abs() <= 5 * error).all()
    assert relative(draws.mean(0), exact) < 0.1


def test_sampled_diagonal_of_predictions_at_every_pixel() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(2, 3, 1).double()
    targets = torch.randint(3, (4, 2, 2))
    targets[0, 0, 0] = -100
    risk = EmpiricalRisk(model, [(torch.randn(4, 2, 2, 2, dtype=torch.float64), targets)])
    exact = of_ggn(risk)
    assert relative(ggn_diagonal(risk).values, exact) < 1e-9
    many = ggn_diagonal(risk, exact_up_to=0, draws=4000)
    assert many.note == "sampled diagonal, 4,000 draws for each example, 4 examples, up to 12 outputs"
    assert relative(many.values, exact) < 0.05


def test_curvature_scores_are_the_rise_of_the_quadratic_model() -> None:
    model, batches = mlp_case()
    order = rank(model, "curvature", batches)
    risk = EmpiricalRisk(model, batches)
    expected = exact_curvature(model, batches, "ggn").diagonal() * risk.flat_weights().square() / 2
    assert relative(torch.cat([score.flatten() for score in order.scores.values()]), expected) < 1e-9
    assert order.note == "exact diagonal from per-example gradients, 40 examples, 3 outputs"


def test_curvature_uses_the_first_256_examples() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    batches = [(torch.randn(100, 3), torch.randint(2, (100,))) for _ in range(3)]
    first = [*batches[:2], (batches[2][0][:56], batches[2][1][:56])]
    found, expected = rank(model, "curvature", batches), rank(model, "curvature", first)
    assert found.note == expected.note == "exact diagonal from per-example gradients, 256 examples, 2 outputs"
    assert torch.equal(found.scores["weight"], expected.scores["weight"])


def test_a_loss_over_pairs_of_examples_is_refused() -> None:
    class Contrast(Squared):
        def of_output(self, output: Tensor, batch: Any) -> Tensor:
            return (output - output.mean(0)).square().sum()

    model, batches = mlp_case()
    with pytest.raises(InputError, match="is not the mean of its examples' losses"):
        ggn_diagonal(EmpiricalRisk(model, batches, Contrast()))


def test_many_outputs_of_another_loss_are_refused() -> None:
    class Mixed(Squared):
        def of_output(self, output: Tensor, batch: Any) -> Tensor:
            return output.sum(1).square().mean()

    model, batches = mlp_case()
    risk = EmpiricalRisk(model, batches, Mixed())
    assert relative(ggn_diagonal(risk).values, of_ggn(risk)) < 1e-9
    with pytest.raises(InputError, match="is known only for cross-entropy"):
        ggn_diagonal(risk, exact_up_to=2)
