"""The examples of docs/training.md run as they stand, with fewer epochs."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from pretrained_for_tests import batches_for, tiny

PAGE = Path(__file__).parents[2] / "docs" / "training.md"

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not PAGE.exists(), reason="not a checkout"),
    pytest.mark.filterwarnings(
        "ignore:.*num_workers:UserWarning",
        "ignore:.*LeafSpec:FutureWarning",
        "ignore:.*pin_memory:UserWarning",
        "ignore:.*tensorboard.*:UserWarning",
        "ignore:The number of training batches:UserWarning",
    ),
]


def run_example(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The names that one example makes."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (code,) = (block for block in blocks if block.startswith(f"# {name}\n"))
    exec(code.replace("epochs=10", "epochs=2"), given)
    return given


def test_the_example_of_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (batch,) = batches_for("text", (12,))
    examples = [{name: tensor[i] for name, tensor in batch.items()} for i in range(12)]
    made = run_example("trainer", {"model": tiny("text", torch.float32), "train_set": examples, "held_out": examples})
    (logged,) = [log for log in made["trainer"].state.log_history if "howsparse_measured_sparsity" in log]
    assert logged["epoch"] == 2
    assert str(logged) in capsys.readouterr().out


def test_the_example_of_lightning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pytorch_lightning as pl

    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> Any:
            return self.layer(x)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    loader: DataLoader[Any] = DataLoader([(torch.randn(4), i % 3) for i in range(12)], 6)  # type: ignore[arg-type]
    given = {"module": Module(), "train_loader": loader, "held_loader": loader}
    value = run_example("lightning", given)["trainer"].callback_metrics["howsparse_measured_sparsity"]
    assert str(value) in capsys.readouterr().out
