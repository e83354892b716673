"""The networks of `benchmarks.deploy`: FC5 and AlexNet's linear part with zeros, and ResNet20 with fewer channels."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import howsparse
from benchmarks.real_networks_cases import Sources as Files
from benchmarks.real_networks_cases import cifar10, resnet
from howsparse.loading import load_weights
from howsparse.tasks.data import Images, ShuffledBatches
from howsparse.tasks.networks import alexnet, fc5
from howsparse.training.loop import fit

__all__ = ["Sources", "accuracy", "alexnet_linear", "dense_resnet20", "pruned_fc5", "structured", "torch_pruned"]

STEPS = {"images": 4000, "epochs": 4, "batch": 64, "learning_rate": 0.01}
STRENGTH = 0.03  # of the l1 term on scales and shifts of the BatchNorms inside blocks


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
    none = Path("none")
    files = Files(sources.nets, Path(sources.data), none, none, none)
    train, test = cifar10(files)
    return resnet(3, "resnet20-12fca82f.th")(files).model, train, test


def structured(sources: Sources) -> nn.Module:
    """ResNet20 after a few epochs with l1 on the scales and shifts of the BatchNorms inside blocks.

    The last epoch is without l1. Scales that are exactly zero stay so.
    """
    model, train, _ = dense_resnet20(sources)

    def made(model: nn.Module) -> None:
        norms = [p for name, p in model.named_parameters() if name.startswith("layer") and ".bn1." in name]
        optimizer = _optimizer(model)
        term = howsparse.attach_l1(optimizer, norms, STRENGTH, proximal=True)
        last = int(STEPS["epochs"]) - 1

        def before(epoch: int) -> None:
            if epoch == last:
                term.remove()
                zeros = [(p, p != 0) for p in norms]
                optimizer.register_step_post_hook(lambda *_: _hold(zeros))

        _fit(model, optimizer, train, before)

    return _kept(model, sources.folder / "resnet20-structured.safetensors", made)


def _hold(zeros: list[tuple[nn.Parameter, Tensor]]) -> None:
    for parameter, kept in zeros:
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
    return _kept(model, file, lambda made: _fit(made, _optimizer(made), train, lambda epoch: None))


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
    return torch.optim.SGD(model.parameters(), STEPS["learning_rate"], momentum=0.9)


def _fit(model: nn.Module, optimizer: torch.optim.Optimizer, train: Images, before: Callable[[int], None]) -> None:
    shuffled = ShuffledBatches(train.first(int(STEPS["images"])), int(STEPS["batch"]), augment=True)

    def batches(epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
        return shuffled(0, epoch)

    fit(model, optimizer, batches, int(STEPS["epochs"]), before_epoch=before)


def _kept(model: nn.Module, file: Path, train: Callable[[nn.Module], None]) -> nn.Module:
    """The network with the weights in a file; if there is no file, it is trained and the file written."""
    if file.exists():
        load_weights(model, file)
    else:
        train(model)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in copy.deepcopy(model).state_dict().items()}, file)
    return model.eval()
