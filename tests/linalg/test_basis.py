import numpy as np
import pytest
import torch

from howsparse.linalg.basis import Basis, dot, norm


def filled(storage: torch.dtype, count: int, size: int) -> tuple[Basis, torch.Tensor]:
    rows = torch.linalg.qr(torch.randn(size, count, generator=torch.Generator().manual_seed(0))).Q.T.contiguous()
    basis = Basis(rows[0], storage)
    for row in rows:
        basis.append(row)
    return basis, rows


@pytest.mark.parametrize("storage", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 5, 40])
def test_vectors_become_orthogonal_to_the_first_stored_ones(
    storage: torch.dtype, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("howsparse.linalg.basis._CPU_COLUMNS", 300)
    basis, rows = filled(storage, 40, 1000)
    vectors = torch.randn(2, 1000, generator=torch.Generator().manual_seed(1))
    before = vectors.double()
    removed = basis.remove_from(list(vectors), count)
    exact = before @ rows[:count].double().T
    close = 1e-5 if storage == torch.float32 else 2e-2
    assert removed == pytest.approx(exact.numpy(), abs=close)
    assert np.abs((vectors.double() - (before - exact @ rows[:count].double())).numpy()).max() < close
    assert basis.reads == 2 * count


def test_the_last_vector_can_be_replaced() -> None:
    basis, rows = filled(torch.float32, 33, 50)  # the last one is alone in its chunk
    basis.replace_last(rows[0])
    assert torch.equal(basis.rows(), torch.cat([rows[:-1], rows[:1]]))
    assert len(basis) == 33


def test_inner_products_are_in_float64() -> None:
    """A float32 sum of these numbers loses all of the small ones."""
    a = torch.cat([torch.tensor([1e4]), torch.full((100_000,), 1e-2), torch.tensor([-1e4])])
    b = torch.cat([torch.tensor([1e4]), torch.full((100_000,), 1e-2), torch.tensor([1e4])])
    assert dot(a, b) == pytest.approx(100_000 * float(torch.tensor(1e-2)) ** 2, rel=1e-5)
    assert norm(a) == pytest.approx(float(np.linalg.norm(a.double().numpy())), rel=1e-14)
