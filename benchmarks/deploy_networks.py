"""The networks of `benchmarks.deploy`: FC5 and AlexNet's linear part with zeros, and ResNet20 with fewer channels."""

import copy
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import howsparse
from benchmarks.real_networks_cases import ResNet, cifar10
from benchmarks.real_networks_cases import Sources as Files
from howsparse.loading import load_weights
from howsparse.tasks.data import Images, ShuffledBatches
from howsparse.tasks.networks import alexnet, fc5
from howsparse.training.loop import Epoch, fit

__all__ = ["Sources", "accuracy", "alexnet_linear", "dense_resnet20", "pruned_fc5", "structured", "torch_pruned"]

IMAGES, EPOCHS, BATCH = 15_000, 5, 128  # of the training of pruned ResNet20s
LEARNING_RATE = 0.01
L1_EPOCHS, STRENGTH = 2, 0.025  # of the l1 term on scales and shifts of the BatchNorms inside blocks
SHARE = 0.5  # of the channels inside blocks that are removed


@dataclass(frozen=True)
class Sources:
    """Where the files are. None of them is part of the repository.

    Attributes:
        data: CIFAR-10.
        nets: folder with ResNet20.
        weights: FC5 after 30 epochs with l1 1e-4; None to train it.
        folder: where trained networks are kept.
    """

    data: str
    nets: Path
    weights: Path | None
    folder: Path


def pruned_fc5(sources: Sources, sparsity: float) -> nn.Module:
    """FC5, trained for 30 epochs with l1 1e-4, with the smallest weights set to zero."""
    model: nn.Module = fc5()
    if sources.weights is not None:
        load_weights(model, sources.weights)
    else:
        model = _kept(model, sources.folder / "fc5-l1.safetensors", lambda made: _train_fc5(made, sources.data))
    howsparse.magnitude_mask(model, sparsity).apply_(model)
    return model.eval()


def _train_fc5(model: nn.Module, data: str) -> None:
    problem = howsparse.load_task("fc5-cifar10", data, epochs=30, l1=1e-4)
    trained = howsparse.methods.dense(problem, 0.0, seed=0).model
    model.load_state_dict(trained.state_dict())


def alexnet_linear(sparsity: float) -> nn.Module:
    """AlexNet's three linear layers at initialisation, pruned at random: times do not depend on the values."""
    torch.manual_seed(0)
    model = alexnet()[-5:]
    howsparse.random_mask(model, sparsity).apply_(model)
    return model.eval()


def dense_resnet20(sources: Sources) -> tuple[nn.Module, Images, Images]:
    """The pretrained ResNet20, and its training and test images."""
    files = _files(sources)
    model = ResNet(3)
    load_weights(model, files.nets / "resnet20-12fca82f.th")
    return model, *_images(files)


def _files(sources: Sources) -> Files:
    none = Path("none")
    return Files(sources.nets, Path(sources.data), none, none, none)


_images = cache(cifar10)


def structured(sources: Sources) -> nn.Module:
    """ResNet20, trained with l1 on the scales and shifts of the BatchNorms inside blocks for the first epochs.

    Then the channels with the smallest scales are set to zero, and stay zero until the end.
    """
    model, train, _ = dense_resnet20(sources)

    def made(model: nn.Module) -> None:
        norms = [layer for name, layer in model.named_modules() if name.startswith("layer") and name.endswith(".bn1")]
        scales = [norm.get_parameter("weight") for norm in norms]
        shifts = [norm.get_parameter("bias") for norm in norms]
        optimizer = _optimizer(model)
        term = howsparse.attach_l1(optimizer, [*scales, *shifts], STRENGTH, proximal=True)

        def before(epoch: int) -> None:
            if epoch == L1_EPOCHS:
                term.remove()
                kept = _largest(scales, 1 - SHARE)
                held = [*zip(scales, kept, strict=True), *zip(shifts, kept, strict=True)]
                _hold(held)
                optimizer.register_step_post_hook(lambda *_: _hold(held))

        _fit(model, optimizer, train, before)

    return _kept(model, sources.folder / "resnet20-structured.safetensors", made)


def _largest(scales: list[nn.Parameter], share: float) -> list[Tensor]:
    """Which scales are among the largest of all layers."""
    sizes = torch.cat([scale.detach().abs() for scale in scales])
    least = sizes.sort(descending=True).values[round(share * len(sizes)) - 1]
    return [scale.detach().abs() >= least for scale in scales]


def _hold(held: list[tuple[nn.Parameter, Tensor]]) -> None:
    for parameter, kept in held:
        parameter.data.mul_(kept)


def torch_pruned(sources: Sources, ratio: float, example: Tensor) -> nn.Module:
    """ResNet20, pruned by Torch-Pruning inside blocks at once, then trained as long as `structured`."""
    import torch_pruning

    model, train, _ = dense_resnet20(sources)
    inner = {layer for name, layer in model.named_modules() if name.startswith("layer") and name.endswith("conv1")}
    others = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear) and layer not in inner]
    pruner = torch_pruning.pruner.MagnitudePruner(
        model, example, torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio, ignored_layers=others, global_pruning=True,
    )  # fmt: skip
    pruner.step()
    file = sources.folder / f"resnet20-torch-pruning-{ratio:g}.safetensors"
    return _kept(model, file, lambda made: _fit(made, _optimizer(made), train))


def accuracy(model: nn.Module, images: Images, size: int = 500) -> float:
    """Fraction of right answers in evaluation mode."""
    right = 0
    with torch.inference_mode():
        model.eval()
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            right += int((model(images.normalised(images.pixels[part])).argmax(1) == images.labels[part]).sum())
    return right / len(images)


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=0.9)


def _fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Images,
    before: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Train with a cosine schedule to zero. Convolutions are faster with channels last."""
    shuffled = ShuffledBatches(train.first(IMAGES), BATCH, augment=True)

    def batches(epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
        return shuffled(0, epoch)

    def cosine(epoch: int) -> float:
        return (1 + math.cos(math.pi * epoch / EPOCHS)) / 2

    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def told(done: Epoch) -> None:
        print(done, file=sys.stderr)

    fit(model, optimizer, batches, EPOCHS, factor=cosine, before_epoch=before, on_epoch=told)


def _kept(model: nn.Module, file: Path, train: Callable[[nn.Module], None]) -> nn.Module:
    """The network with the weights in a file; if there is no file, it is trained and the file written."""
    if file.exists():
        load_weights(model, file)
    else:
        train(model)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in copy.deepcopy(model).state_dict().items()}, file)
    return model.eval()
