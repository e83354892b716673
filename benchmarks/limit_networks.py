"""The networks of `benchmarks.limit`: their data, their weights, and how much of them is timed."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.problems import train_dense
from howsparse.loading import load_weights
from howsparse.problem import Problem
from howsparse.tasks.data import Batches, Images, ShuffledBatches, load_images
from howsparse.tasks.networks import kaiming_normal_, resnet
from howsparse.tasks.recipe import change_recipe, load_recipe
from howsparse.tasks.task import task_problem

_QUICK_IMAGES, _SHORT_TRAINING = 1000, 5000


@dataclass(frozen=True)
class Effort:
    """How much is timed before it is scaled.

    Attributes:
        examples: training examples of the products' comparison; whole batches.
        batch: examples in a batch, for every tool.
        rounds: turns that every tool takes.
        test_examples: test examples of one timed evaluation.
        overhead_steps: Lanczos steps at which vector work is timed.
        by_onednn: whether the others' products are also timed with the matrix products that howsparse takes.
    """

    examples: int
    batch: int
    rounds: int
    test_examples: int
    overhead_steps: int = 32
    by_onednn: bool = True


@dataclass(frozen=True)
class Tokens:
    """Sequences of tokens in memory.

    Attributes:
        ids: ``(n, length)``, int64.
    """

    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, count: int) -> "Tokens":
        return Tokens(self.ids[:count])


Data = Images | Tokens


@dataclass(frozen=True)
class Network:
    """A network under study, its data, and where its weights come from.

    Attributes:
        ours: howsparse's way at all training examples: memory holds the graphs of a fully connected network's, but of a
            few hundred at most of a convnet's, where all count as built again each time.
        used: training examples of howsparse's limit, which is really computed; None: its time is scaled.
    """

    name: str
    weights: str
    ours: Literal["howsparse", "howsparse, graphs rebuilt"]
    model: nn.Module
    train: Data
    test: Data
    effort: Effort
    used: int | None = None

    def batches(self, count: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """The first training examples in memory, so that no tool waits for them."""
        return in_batches(self.train if count is None else self.train.first(count), self.effort.batch)

    def test_batches(self, count: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """The first test examples."""
        return in_batches(self.test if count is None else self.test.first(count), self.effort.batch)


class NextToken(nn.Module):
    """A causal language model as every tool reads it: ``(n, classes, positions)`` logits of the next tokens."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits[:, :-1].transpose(1, 2)


def in_batches(data: Data, size: int) -> list[tuple[Tensor, Tensor]]:
    """``(input, target)`` pairs."""
    if isinstance(data, Images):
        return list(Batches(data, size))
    return [(part, part[:, 1:]) for part in data.ids.split(size)]


def quick_networks(data: str | None, nets: Path | None) -> list[Network]:
    """The same networks on few examples, within three minutes on two cores."""
    train, test = load_images(load_recipe("fc5-cifar10").data, data, first=_QUICK_IMAGES)
    model, origin = short_training(train, test)
    efforts = Effort(500, 250, 2, 500, 16), Effort(8, 8, 2, 16, 8, by_onednn=False), Effort(64, 32, 2, 128, 16)
    fc = Network("FC5", origin, "howsparse", model, train.first(500), test.first(500), efforts[0], used=500)
    return [fc, resnet18(train.first(500), test.first(500), efforts[1]), *llama(nets, efforts[2], train=128, used=128)]


def full_networks(data: str | None, weights: Path | None, nets: Path | None, images: int) -> list[Network]:
    """FC5 and ResNet18 on all images of CIFAR-10; the Llama, if the folder of networks is given."""
    train, test = load_images(load_recipe("fc5-cifar10").data, data)
    if weights is None:
        model, origin = short_training(train.first(_SHORT_TRAINING), test)
    else:
        model, origin = task_problem(load_recipe("fc5-cifar10"), train, test).initial(), str(weights.name)
        load_weights(model, weights)
    fc = Network("FC5", origin, "howsparse", model, train, test, Effort(4000, 1000, 3, len(test)), used=images)
    other = resnet18(train, test, Effort(32, 32, 2, 128))
    return [fc, other, *llama(nets, Effort(128, 32, 3, 256), train=768, used=64)]


def short_training(train: Images, test: Images) -> tuple[nn.Module, str]:
    """FC5 after two epochs on some images."""
    note(f"no --weights: training FC5 for 2 epochs on {len(train):,} images")
    recipe = change_recipe(load_recipe("fc5-cifar10"), {"epochs": 2})
    problem: Problem = task_problem(recipe, train, test)
    assert isinstance(problem.train, ShuffledBatches)
    return train_dense(problem), f"2 epochs of l1 {recipe.l1:g} on {len(train):,} images"


def resnet18(train: Images, test: Images, effort: Effort) -> Network:
    """ResNet18 at initialisation; memory does not hold the graphs of its images."""
    return Network("ResNet18", "initialisation", "howsparse, graphs rebuilt", convnet(train), train, test, effort)


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


def llama(nets: Path | None, effort: Effort, train: int, used: int) -> list[Network]:
    """The Llama of 260,000 weights on text that it sampled itself; nothing without its folder."""
    if nets is None:
        note("no --nets: without the Llama")
        return []
    import transformers as hub

    folder = nets / "stories260K"
    # The other tools differentiate twice, which fused attention does not do.
    model = hub.LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager")
    ids = next(iter(load_file(folder / "sampled_ids.safetensors").values())).long().view(-1, 64)
    words = "stories260K, as its makers trained it"
    found = NextToken(model).eval()
    sequences = Tokens(ids[:train]), Tokens(ids[768 : 768 + effort.test_examples])
    return [Network("Llama 260K", words, "howsparse", found, *sequences, effort, used)]


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
