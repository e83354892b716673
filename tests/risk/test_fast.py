import pytest
import torch
from torch import Tensor, nn

from howsparse import certify, measure
from howsparse.risk.evaluate import evaluate
from howsparse.risk.fast import fast_convolutions
from networks_for_tests import convnet_case


class Viewing(nn.Module):
    """A network that works with contiguous activations only."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)).double()
        self.head = nn.Linear(48, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.convs(x).view(len(x), -1))
        return y


@pytest.mark.parametrize("viewing", [False, True])
def test_values_are_the_same_and_the_weights_come_back(viewing: bool) -> None:
    model, batches = convnet_case()
    model = Viewing() if viewing else model
    before = {name: (p.data_ptr(), p.stride(), p.detach().clone()) for name, p in model.named_parameters()}
    plain = evaluate(model, batches)
    with fast_convolutions(model, batches) as pieces:
        conv = next(p for p in model.parameters() if p.ndim == 4)
        assert (pieces is batches) == viewing
        assert conv.is_contiguous(memory_format=torch.channels_last) or viewing
        assert evaluate(model, pieces) == pytest.approx(plain, rel=1e-12)
    for name, p in model.named_parameters():
        pointer, stride, values = before[name]
        assert (p.data_ptr(), p.stride()) == (pointer, stride)
        assert torch.equal(p, values)


def test_the_weights_come_back_after_an_exception() -> None:
    model, batches = convnet_case()
    before = [p.data_ptr() for p in model.parameters()]

    def stop(point: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(model, batches, max_drop=0.1, on_point=stop)
    with pytest.raises(KeyboardInterrupt):
        certify(model, batches * 20, max_drop=0.5, on_point=stop)
    assert [p.data_ptr() for p in model.parameters()] == before


def test_an_error_of_the_caller_is_not_swallowed() -> None:
    model, batches = convnet_case()
    with pytest.raises(RuntimeError, match="mine"), fast_convolutions(model, batches):
        raise RuntimeError("mine")
