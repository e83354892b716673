"""The ONNX file gives torch's outputs at every batch size, or it is not written."""

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from howsparse import InputError, export_onnx

pytestmark = pytest.mark.usefixtures("one_thread")


class Cached(nn.Module):
    """Like a generating model of Hugging Face: it returns an object that ONNX does not have unless told otherwise."""

    class Config:
        use_cache = True

    def __init__(self) -> None:
        super().__init__()
        self.config, self.words = self.Config(), nn.Embedding(9, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Any]:
        logits = self.words(input_ids) * attention_mask[..., None]
        return {"logits": logits} | ({"cache": object()} if self.config.use_cache else {})


class Drawn(nn.Module):
    """Its outputs are drawn at random."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.dropout(x, 0.5, training=True)


class Branching(nn.Module):
    """What it does depends on a number that is only known when it runs."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


@pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="its exporter fails at a norm with later onnxscript")
def test_outputs_are_torchs_at_every_batch_size(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The example is one image; the network is in training mode, and its statistics must not change."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = tmp_path / "net.onnx"
    made = export_onnx(model, torch.randn(1, 1, 8, 8), path)
    assert capfd.readouterr() == ("", "")
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert made.error < 1e-6
    assert (made.batches, made.num_bytes) == ((1, 5), path.stat().st_size)
    session = onnxruntime.InferenceSession(path)
    model.eval()
    for size in (1, 2, 7, 64):
        x = torch.randn(size, 1, 8, 8)
        (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(out), model(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match=r"net\.onnx exists"):
        export_onnx(model, torch.randn(1, 1, 8, 8), path)


def test_named_inputs_and_no_cache(tmp_path: Path) -> None:
    model, path = Cached(), tmp_path / "net.onnx"
    batch = {"input_ids": torch.randint(0, 9, (3, 4)), "attention_mask": torch.ones(3, 4)}
    assert export_onnx(model, batch, path).error == 0
    assert model.config.use_cache is True
    assert [each.name for each in onnxruntime.InferenceSession(path).get_inputs()] == ["input_ids", "attention_mask"]


REFUSED = [
    (Drawn(), torch.ones(2, 40), "onnxruntime and torch differ by .* of the largest output, more than 1.0e-04"),
    # torch 2.6 exports one of the branches; then the file does not agree with the network
    (Branching(), torch.ones(2, 4), "the network cannot be exported to ONNX: |onnxruntime fails at batch size 1: "),
]


@pytest.mark.parametrize(("model", "example", "message"), REFUSED, ids=["drawn", "branching"])
def test_what_does_not_agree_is_not_written(
    model: nn.Module, example: Tensor, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.onnx").write_text("old")
    with pytest.raises(InputError, match=message) as caught:
        export_onnx(model, example, tmp_path / "old.onnx", force=True)
    assert "\n" not in str(caught.value)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("old.onnx", "old")]
    assert capfd.readouterr().out == ""
