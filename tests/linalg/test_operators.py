"""Every operator is a symmetric matrix: checked against the dense one in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from howsparse import InputError
from howsparse.linalg.operators import Block, Operator
from howsparse.linalg.remembered import Remembered
from howsparse.risk.curvature import GGN, Hessian, Sample
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.store import Store
from networks_for_tests import exact_curvature, mlp_case

KINDS = ["hessian", "ggn", "sample", "block", "remembered"]


def case(kind: str, folder: Path) -> tuple[Operator, Tensor]:
    """An operator, and the matrix that it is."""
    model, batches = mlp_case()
    risk = EmpiricalRisk(model, batches)
    whole, hessian = Hessian(risk), exact_curvature(model, batches)
    if kind == "ggn":
        return GGN(risk), exact_curvature(model, batches, "ggn")
    if kind == "sample":
        return Sample(whole, 2), exact_curvature(model, batches[:2])
    if kind == "block":
        chosen = torch.rand(56, generator=torch.Generator().manual_seed(0)) < 0.5
        return Block(whole, chosen), hessian[chosen][:, chosen]
    return (Remembered(whole, Store(folder), "test"), hessian) if kind == "remembered" else (whole, hessian)


@pytest.mark.parametrize("kind", KINDS)
def test_an_operator_is_its_dense_matrix(kind: str, tmp_path: Path) -> None:
    operator, dense = case(kind, tmp_path)
    n = len(dense)
    assert (operator.shape, operator.dtype, operator.device) == ((n, n), dense.dtype, dense.device)
    assert operator.T is operator
    columns = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(operator @ columns[:, 0], dense @ columns[:, 0], atol=1e-12)
    assert operator.num_products == 1
    assert torch.allclose(operator @ columns, dense @ columns, atol=1e-12)
    assert operator.num_products == 4
    assert (operator @ columns[:, :0]).shape == (n, 0)
    for wrong in (columns.T, columns[1:, 0], columns[None]):
        with pytest.raises(InputError, match="cannot multiply a tensor of shape"):
            operator @ wrong


@pytest.mark.parametrize("kind", KINDS)
def test_scipy_takes_an_operator_for_its_dense_matrix(kind: str, tmp_path: Path) -> None:
    operator, dense = case(kind, tmp_path)
    scipys = operator.to_scipy()
    columns = np.random.default_rng(0).standard_normal((len(dense), 3))
    assert scipys.shape == operator.shape
    assert scipys.dtype == np.float64
    for of in (columns[:, 0], columns[:, :1], columns, columns[:, ::-1]):
        assert scipys @ of == pytest.approx(dense.numpy() @ of, abs=1e-12)
        assert scipys.T @ of == pytest.approx(dense.numpy() @ of, abs=1e-12)
    largest = eigsh(scipys, k=2, which="LA", return_eigenvectors=False)
    assert largest == pytest.approx(torch.linalg.eigvalsh(dense)[-2:].numpy(), abs=1e-10)


def test_scipy_sees_a_matrix_of_bfloat16_as_float32() -> None:
    model, batches = mlp_case()
    model = model.to(torch.bfloat16)
    risk = EmpiricalRisk(model, [(x.to(torch.bfloat16), y) for x, y in batches])
    scipys = Hessian(risk).to_scipy()
    assert scipys.dtype == np.float32
    assert (scipys @ np.ones(56)).dtype == np.float32
