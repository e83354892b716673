"""The networks of `benchmarks.limit`: their images, their weights, and how much of them is timed."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.problems import test_images, train_dense, train_images
from howsparse.loading import load_weights
from howsparse.tasks import load_task
from howsparse.tasks.data import Batches, Images, ShuffledBatches
from howsparse.tasks.networks import kaiming_normal_, resnet


@dataclass(frozen=True)
class Effort:
    """How much is timed before it is scaled.

    Attributes:
        images: training images of the products' comparison; whole batches.
        batch: examples in a batch, for every tool.
        rounds: turns that every tool takes.
        test_images: test images of one timed evaluation.
        overhead_steps: Lanczos steps at which vector work is timed.
    """

    images: int
    batch: int
    rounds: int
    test_images: int
    overhead_steps: int = 32


@dataclass(frozen=True)
class Network:
    """A network under study, its images, and where its weights come from.

    Attributes:
        ours: howsparse's way at all training images: memory holds the graphs of a fully connected network's, but of a
            few hundred at most of a convnet's, where all count as built again each time.
    """

    name: str
    weights: str
    ours: Literal["howsparse", "howsparse, graphs rebuilt"]
    model: nn.Module
    train: Images
    test: Images
    effort: Effort

    def batches(self, images: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """The first training images in memory, so that no tool waits for them."""
        return list(Batches(self.train if images is None else self.train.first(images), self.effort.batch))


def quick_networks() -> tuple[Network, Network]:
    """Stand-ins that take seconds: digits, and a narrow convnet on random images."""
    problem = load_task("digits", epochs=40)
    fc_effort = Effort(images=1280, batch=128, rounds=5, test_images=360)
    model, train, test = train_dense(problem), train_images(problem), test_images(problem)
    fc = Network("digits MLP", "40 epochs of l1 1e-3", "howsparse", model, train, test, fc_effort)
    noise = random_images(256)
    effort = Effort(images=16, batch=8, rounds=3, test_images=16)
    narrow = convnet(noise, (4, 8, 16, 32))
    return fc, Network("narrow ResNet18", "initialisation", "howsparse, graphs rebuilt", narrow, noise, noise, effort)


def full_networks(data: str | None, weights: Path | None) -> tuple[Network, Network]:
    problem = load_task("fc5-cifar10", data)
    train, test = train_images(problem), test_images(problem)
    if weights is None:
        note("no --weights: training FC5 for 2 epochs on 5,000 images")
        first = train.first(5000)
        short = replace(problem, train=ShuffledBatches(first, 128), study=Batches(first, 1000), epochs=2)
        model, origin = train_dense(short), "2 epochs of l1 5e-5 on 5,000 images"
    else:
        model, origin = problem.initial(), str(weights.name)
        load_weights(model, weights)
    fc = Network("FC5", origin, "howsparse", model, train, test, Effort(4000, 1000, 7, len(test)))
    effort = Effort(images=64, batch=32, rounds=3, test_images=256)
    resnet = convnet(train)
    other = Network("ResNet18", "initialisation", "howsparse, graphs rebuilt", resnet, train, test, effort)
    return fc, other


def convnet(images: Images, widths: tuple[int, ...] = (64, 128, 256, 512), classes: int = 10) -> nn.Module:
    """ResNet18 as the tasks have it, at initialisation; BatchNorm's statistics are the images'."""
    torch.manual_seed(0)
    model = resnet("basic", (2, 2, 2, 2), widths, classes)
    kaiming_normal_(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # one batch sets the statistics
    with torch.no_grad():
        model(images.normalised(images.pixels[:256]))
    return model.eval()


def random_images(count: int) -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return Images(pixels, labels, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
