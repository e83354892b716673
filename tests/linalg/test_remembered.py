"""Products that outlive a process: the same bits, none taken twice, none of another network."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from howsparse import pruning_limit
from howsparse.limit.result import PruningLimit
from howsparse.linalg.remembered import Remembered
from howsparse.risk.curvature import GGN, Hessian
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.store import Store
from networks_for_tests import mlp_case


class Stopped(Exception):
    pass


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Products that are really computed, by how many batches they are over."""
    counts: list[int] = []
    compute = Hessian.over_first  # the GGN's is the same

    def counting(self: Hessian, count: int, vector: torch.Tensor) -> torch.Tensor:
        counts.append(count)
        return compute(self, count, vector)

    for kind in (Hessian, GGN):
        monkeypatch.setattr(kind, "over_first", counting)
    return counts


def limit(folder: Path | None, stop_in: str = "", after: int = 0, seed: int = 0) -> PruningLimit:
    def progress(stage: str, done: int, total: int) -> None:
        if (stage, done) == (stop_in, after):
            raise Stopped

    model, batches = mlp_case(seed)
    return pruning_limit(model, batches, max_products=40, population=400, keep=folder, progress=progress)


def products(folder: Path) -> list[Path]:
    return list(folder.rglob("product-*.safetensors"))


@pytest.mark.parametrize(
    ("stage", "after"),
    [("recoverable", 2), ("bracket", 7), ("16 examples", 2), ("upper bound", 2), ("prediction", 3)],
)
def test_a_limit_that_was_stopped_goes_on(stage: str, after: int, taken: list[int], tmp_path: Path) -> None:
    whole = limit(None)
    needed = sorted(taken)
    taken.clear()
    with pytest.raises(Stopped):
        limit(tmp_path / "kept", stage, after)
    assert 0 < len(taken) < len(needed)
    assert len(products(tmp_path)) == len(taken)
    again = limit(tmp_path / "kept")
    assert sorted(taken) == needed  # together no more than at one go
    assert again.summary() == whole.summary()
    assert products(tmp_path) == []
    taken.clear()
    assert limit(tmp_path / "kept").summary() == whole.summary()  # the limit itself is kept
    assert taken == []


def test_another_network_or_option_takes_its_own(taken: list[int], tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        limit(tmp_path / "kept", "bracket", 5, seed=0)
    other = limit(tmp_path / "kept", seed=1)
    assert other.bracket == limit(None, seed=1).bracket
    # the first network's are still there: three of the recovery, five steps, and the look for zero rows
    assert len(products(tmp_path)) == 9
    model, batches = mlp_case(0)
    options: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"tolerance": 0.01},
        {"negative": "unbounded"},
        {"precision": 0.1},
    ]
    brackets = [pruning_limit(model, batches, max_products=40, **option).bracket for option in options]
    for option, bracket in zip(options, brackets, strict=True):
        assert pruning_limit(model, batches, max_products=40, keep=tmp_path / "kept", **option).bracket == bracket


def test_a_file_that_is_cut_short_counts_for_nothing(taken: list[int], tmp_path: Path) -> None:
    model, batches = mlp_case()
    risk = EmpiricalRisk(model, batches)
    vector = torch.ones(risk.num_weights, dtype=torch.float64)
    product = Remembered(Hessian(risk), Store(tmp_path), "mlp") @ vector
    (file,) = products(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="kept work is made again"):
        assert torch.equal(Remembered(Hessian(risk), Store(tmp_path), "mlp") @ vector, product)
    assert len(taken) == 2
    assert torch.equal(Remembered(Hessian(risk), Store(tmp_path), "mlp") @ vector, product)
    assert len(taken) == 2


def test_a_product_that_was_copied_over_another_is_taken_again(taken: list[int], tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        limit(tmp_path / "kept", "bracket", 7)
    one, *others = sorted(products(tmp_path))
    for other in others:
        shutil.copyfile(one, other)
    with pytest.warns(UserWarning, match="is the product of other inputs"):
        assert limit(tmp_path / "kept").summary() == limit(None).summary()


def test_what_it_did_not_make_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    limit(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
