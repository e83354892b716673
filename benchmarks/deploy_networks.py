"""The networks of `benchmarks.deploy`: FC5 and AlexNet's linear part with zeros, and ResNet20 with fewer channels."""

import copy
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import howsparse
from benchmarks.problems import test_images, train_images
from benchmarks.real_networks_cases import ResNet, cifar10
from benchmarks.real_networks_cases import Sources as Files
from howsparse.deploy import Compacted, compacted
from howsparse.loading import load_weights
from howsparse.tasks.data import Batches, Images, ShuffledBatches
from howsparse.tasks.networks import alexnet, fc5
from howsparse.training.loop import Epoch, fit

__all__ = [
    "TRAINING",
    "Sources",
    "accuracy",
    "alexnet_linear",
    "dense_resnet20",
    "pruned_fc5",
    "torch_pruned",
    "without_channels",
]

STEPS, EPOCHS, BATCH = 120, 6, 128  # of the training of smaller ResNet20s; an epoch is a third of the images
LEARNING_RATE = 0.01
CALIBRATION = 1_000  # training images of the repair
MULTIPLE = 8  # of channels, for both ways to make ResNet20 smaller
TRAINING = {"epochs": EPOCHS, "images": STEPS * BATCH, "learning_rate": LEARNING_RATE, "calibration": CALIBRATION}


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


def small_vgg16(sources: Sources) -> tuple[nn.Module, dict[str, Compacted], Images]:
    """VGG16 with a quarter of the channels, trained with l1; what is left of it, and the test images.

    92 % of its weights are removed, or channels that save 30 % of the multiplications. The layers are then refitted.
    Nothing is trained after that.
    """
    problem = howsparse.load_task("vgg16-quarter-cifar10", sources.data)

    def train(made: nn.Module) -> None:
        made.load_state_dict(howsparse.methods.load_method("one_shot")(problem, 0.0, 0).model.state_dict())

    dense = _kept(problem.initial(0), sources.folder / "vgg16-quarter.safetensors", train)
    test = test_images(problem)
    x = test.normalised(test.pixels[:1])
    calibration = Batches(train_images(problem).first(2 * CALIBRATION), 250)
    masks = {
        "weights": howsparse.magnitude_mask(dense, 0.92),
        "channels": howsparse.channel_mask(dense, x, 0.3, multiple=MULTIPLE // 2),
    }
    smaller = {}
    for name, mask in masks.items():
        pruned = copy.deepcopy(dense)
        howsparse.repair_layers(pruned, mask, calibration)
        smaller[f"{name} removed"] = compacted(pruned.eval(), x)
    return dense, smaller, test


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


def without_channels(sources: Sources, saved: float, example: Tensor) -> Compacted:
    """ResNet20 without channels inside blocks: cut, refitted by least squares, compacted, and then trained."""
    model, train, _ = dense_resnet20(sources)
    calibration = Batches(train.first(CALIBRATION), 250)
    mask = _channels(model, example, saved, calibration, MULTIPLE)
    file = sources.folder / f"resnet20-channels-{saved:g}.safetensors"
    if file.exists():
        mask.apply_(model)
    else:
        howsparse.repair_layers(model, mask, calibration)
        howsparse.settle_batchnorm(model, calibration)
    smaller = compacted(model, example)
    return replace(smaller, model=_kept(smaller.model, file, lambda made: _fit(made, train)))


def with_any_width(sources: Sources, saved: float, example: Tensor) -> nn.Module:
    """The same with any number of channels. It is not trained: only its time counts."""
    model, train, _ = dense_resnet20(sources)
    _channels(model, example, saved, Batches(train.first(CALIBRATION), 250), 1).apply_(model)
    return compacted(model, example).model.eval()


def _channels(model: nn.Module, example: Tensor, saved: float, calibration: Batches, multiple: int) -> howsparse.Mask:
    order = howsparse.rank(model, "wanda", calibration)
    return howsparse.channel_mask(model, example, saved, order, multiple=multiple)


def torch_pruned(sources: Sources, ratio: float, example: Tensor) -> nn.Module:
    """ResNet20 without channels inside blocks that Torch-Pruning chose, trained as long as `without_channels`."""
    import torch_pruning

    model, train, _ = dense_resnet20(sources)
    inner = {layer for name, layer in model.named_modules() if name.startswith("layer") and name.endswith("conv1")}
    others = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear) and layer not in inner]
    pruner = torch_pruning.pruner.MagnitudePruner(
        model, example, torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio, ignored_layers=others, global_pruning=True, round_to=MULTIPLE,
    )  # fmt: skip
    pruner.step()
    file = sources.folder / f"resnet20-torch-pruning-{ratio:g}.safetensors"
    return _kept(model, file, lambda made: _fit(made, train))


def accuracy(model: nn.Module, images: Images, size: int = 500) -> float:
    """Fraction of right answers in evaluation mode."""
    right = 0
    with torch.inference_mode():
        model.eval()
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            right += int((model(images.normalised(images.pixels[part])).argmax(1) == images.labels[part]).sum())
    return right / len(images)


def _fit(model: nn.Module, train: Images) -> None:
    """Train with SGD and a cosine schedule to zero. Convolutions are faster with channels last."""
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=0.9)
    shuffled = ShuffledBatches(train, BATCH, augment=True)

    def batches(epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
        return islice(shuffled(0, epoch), STEPS)

    def cosine(epoch: int) -> float:
        return (1 + math.cos(math.pi * epoch / EPOCHS)) / 2

    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def told(done: Epoch) -> None:
        print(done, file=sys.stderr)

    fit(model, optimizer, batches, EPOCHS, factor=cosine, on_epoch=told)


def _kept(model: nn.Module, file: Path, train: Callable[[nn.Module], None]) -> nn.Module:
    """The network with the weights in a file; if there is no file, it is trained and the file written."""
    if file.exists():
        load_weights(model, file)
    else:
        train(model)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in copy.deepcopy(model).state_dict().items()}, file)
    return model.eval()
