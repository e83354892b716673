"""Weights under the names and wrappings that people save them with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.loading import load_weights

State = dict[str, Tensor]


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(4, 2))


WRAPPED: dict[str, Callable[[State], dict[str, Any]]] = {
    "plain": lambda state: state,
    "an entry of a checkpoint": lambda state: {"state_dict": state, "epoch": 3, "accuracy": 0.5},
    "another name of the entry": lambda state: {"model_state_dict": state, "optimizer": {}},
    "parallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "compiled and parallel": lambda state: {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
    "without counters": lambda state: {n: t for n, t in state.items() if "num_batches" not in n},
    "all of it": lambda state: {"state_dict": {f"module.{n}": t for n, t in state.items() if "num_batches" not in n}},
}


@pytest.mark.parametrize("name", WRAPPED)
def test_weights_are_found_in_what_people_save(name: str, tmp_path: Path) -> None:
    model, other = network(0), network(1)
    torch.save(WRAPPED[name](model.state_dict()), tmp_path / "w.pt")
    load_weights(other, tmp_path / "w.pt")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {n: t for n, t in state.items() if n != "1.running_mean"},
        lambda state: state | {"extra": torch.zeros(1)},
        lambda state: {f"module.{n}" if i else n: t for i, (n, t) in enumerate(state.items())},
    ],
)
def test_weights_of_another_model_are_refused(change: object, tmp_path: Path) -> None:
    torch.save(change(network(0).state_dict()), tmp_path / "w.pt")  # type: ignore[operator]
    with pytest.raises(InputError, match="is not a state dict of this model") as caught:
        load_weights(network(1), tmp_path / "w.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int8, torch.bool, torch.float16, torch.float64])
def test_numbers_of_another_kind_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    """Another precision is converted; the imaginary part of a complex number, or a quantised one, has no place."""
    state, model = network(0).state_dict(), network(1)
    before = model.state_dict()["2.weight"].clone()
    state["2.weight"] = state["2.weight"].to(dtype)
    torch.save(state, tmp_path / "w.pt")
    if dtype.is_floating_point:
        load_weights(model, tmp_path / "w.pt")
        assert torch.equal(model.state_dict()["2.weight"], state["2.weight"].float())
        return
    with pytest.raises(InputError, match=rf"'2.weight' is {str(dtype)[6:]} in the file and float32 in the model"):
        load_weights(model, tmp_path / "w.pt")
    assert torch.equal(model.state_dict()["2.weight"], before)
