"""The networks of `benchmarks.real_networks`, with their data. Nobody of this project trained the first four."""

import json
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from howsparse.loading import load_weights
from howsparse.risk.losses import cross_entropy
from howsparse.tasks.data import Images, load_images
from howsparse.tasks.recipe import load_recipe

__all__ = ["CASES", "Case", "Sources"]

Batches = list[Any]


@dataclass(frozen=True)
class Sources:
    """Where the files are. None of them is part of the repository."""

    nets: Path
    cifar10: Path
    text: Path
    wheel: Path
    folder: Path


@dataclass(frozen=True)
class Case:
    """A network and its data.

    Attributes:
        model: the network with its weights.
        calibration: training data, for orders that need data, for the prediction and for the limit.
        choose: data on which sparsities are measured.
        held_out: data that chose nothing, for certificates.
        split: one line that says which data these are.
        max_products: products of the limit.
        limit_examples: examples of ``calibration`` for the limit.
    """

    model: nn.Module
    calibration: Batches
    choose: Batches
    held_out: Batches
    split: str
    max_products: int = 36
    limit_examples: int = 250


class Block(nn.Module):
    """A basic block of He et al. (2015) with their parameter-free shortcut (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.outputs = stride, outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            pad = self.outputs // 4
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))
        return functional.relu(y + x)


class ResNet(nn.Module):
    """The CIFAR ResNet of He et al. (2015) with 3 stages of ``blocks`` blocks."""

    def __init__(self, blocks: int) -> None:
        super().__init__()

        def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            first = Block(inputs, outputs, stride)
            return nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))

        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = stage(16, 16, 1), stage(16, 32, 2), stage(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def resnet(blocks: int, file: str) -> Callable[[Sources], Case]:
    """A pretrained CIFAR ResNet. The test images choose and certify; the training images only calibrate."""

    def make(sources: Sources) -> Case:
        model = ResNet(blocks)
        load_weights(model, sources.nets / file)
        train, test = cifar10(sources)
        pixels, labels = normalised(test)
        return Case(
            model,
            pairs(*normalised(train.first(2000)), 250),
            pairs(pixels[:2000], labels[:2000], 250),
            pairs(pixels[2000:], labels[2000:], 250),
            "calibration: the first 2,000 training images; measured: the first 2,000 test images;"
            " certified: the other 8,000 test images",
        )

    return make


def vit(sources: Sources) -> Case:
    """A small ViT of transformers, trained here on CIFAR-10 for minutes, without l1."""
    import transformers as hub

    size = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 192}
    torch.manual_seed(0)
    model: nn.Module = hub.ViTForImageClassification(
        hub.ViTConfig(**size, image_size=32, patch_size=4, num_labels=10, hidden_dropout_prob=0.0)
    )
    train, test = cifar10(sources)
    pixels, labels = normalised(train.first(20_000))

    def batch(at: Tensor) -> dict[str, Tensor]:
        return {"pixel_values": pixels[at], "labels": labels[at]}

    trained(model, batch, len(labels), 128, steps=500, file=sources.folder / "vit.safetensors")
    seen, unseen = normalised(test)

    def dicts(x: Tensor, y: Tensor) -> Batches:
        return [{"pixel_values": a, "labels": b} for a, b in pairs(x, y, 250)]

    return Case(
        model.eval(),
        dicts(pixels[:2000], labels[:2000]),
        dicts(seen[:2000], unseen[:2000]),
        dicts(seen[2000:6000], unseen[2000:6000]),
        "calibration: the first 2,000 training images; measured: the first 2,000 test images;"
        " certified: the next 4,000 test images",
    )


def gpt2(sources: Sources) -> Case:
    """A model of GPT-2's shape with characters as tokens, trained here on Shakespeare for minutes, without l1."""
    import transformers as hub

    text = sources.text.read_text()
    letters = sorted(set(text))
    ids = torch.tensor([letters.index(letter) for letter in text])
    blocks = ids[: len(ids) // 64 * 64].view(-1, 64)
    torch.manual_seed(0)
    model: nn.Module = hub.GPT2LMHeadModel(
        hub.GPT2Config(vocab_size=len(letters), n_positions=64, n_embd=128, n_layer=4, n_head=4, **NO_DROPOUT)
    )
    train = blocks[:-1700]

    def batch(at: Tensor) -> dict[str, Tensor]:
        return {"input_ids": train[at], "labels": train[at]}

    trained(model, batch, len(train), 64, steps=1500, file=sources.folder / "gpt2.safetensors")
    return Case(
        model.eval(),
        tokens(train[:512]),
        tokens(blocks[-1700:-1200]),
        tokens(blocks[-1200:]),
        "blocks of 64 characters; calibration: the first 512 of the training text; measured: 500 blocks after it;"
        " certified: the last 1,200",
        limit_examples=128,
    )


def stories(sources: Sources) -> Case:
    """The Llama of 260,000 weights, on text that it sampled itself."""
    import transformers as hub

    model: nn.Module = hub.LlamaForCausalLM.from_pretrained(sources.nets / "stories260K")
    ids = next(iter(load_file(sources.nets / "stories260K" / "sampled_ids.safetensors").values())).long().view(-1, 64)
    return Case(
        model.eval(),
        tokens(ids[:128]),
        tokens(ids[:192]),
        tokens(ids[192:]),
        "sequences of 64 tokens, halves of texts sampled from the model; calibration: the first 128; measured: the"
        " first 192; certified: the other 832",
        limit_examples=64,
    )


def albert(sources: Sources) -> Case:
    """The ALBERT of rxnmapper 0.4.3, a masked language model of reactions, on amide couplings that are written out."""
    import transformers as hub

    inside = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"
    with zipfile.ZipFile(sources.wheel) as wheel:
        config = json.loads(wheel.read(f"{inside}/config.json"))
        vocabulary = wheel.read(f"{inside}/vocab.txt").decode().split("\n")
        (sources.folder / "albert.bin").write_bytes(wheel.read(f"{inside}/pytorch_model.bin"))
    model: nn.Module = hub.AlbertForMaskedLM(hub.AlbertConfig(**config, attn_implementation="eager"))
    state = torch.load(sources.folder / "albert.bin", weights_only=True, map_location="cpu")
    model.load_state_dict(state, strict=False)
    model.tie_weights()  # type: ignore[operator]
    texts = reactions()
    batches = masked(texts, vocabulary)
    return Case(
        model.eval(),
        batches[:4],
        batches[4:10],
        batches[10:],
        f"{len(texts)} amide couplings, written out, 15 % of the tokens masked once; batches of 16;"
        f" calibration: the first 64; measured: the next 96; certified: the other {len(texts) - 160}",
        limit_examples=32,
    )


NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
CASES: dict[str, Callable[[Sources], Case]] = {
    "resnet20": resnet(3, "resnet20-12fca82f.th"),
    "resnet32": resnet(5, "resnet32-d509ac18.th"),
    "stories260K": stories,
    "albert": albert,
    "gpt2-shakespeare": gpt2,
    "vit-cifar10": vit,
}


def trained(model: nn.Module, batch: Callable[[Tensor], Any], examples: int, size: int, steps: int, file: Path) -> None:
    """Train with AdamW and a cosine schedule, or load the weights of an earlier training."""
    if file.exists():
        load_weights(model, file)
        return
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model, batch(torch.randint(examples, (size,), generator=generator))).backward()
        optimizer.step()
        schedule.step()
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, file)


def cifar10(sources: Sources) -> tuple[Images, Images]:
    """Training and test images, with ImageNet's mean and standard deviation."""
    data = load_recipe("fc5-cifar10").data
    data = data.model_copy(update={"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)})
    return load_images(data, str(sources.cifar10))


def normalised(images: Images) -> tuple[Tensor, Tensor]:
    """All images as float32, and their labels."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (images.mean, images.std))
    return (images.pixels.float() / 255 - mean) / std, images.labels


def pairs(x: Tensor, y: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(size), y.split(size), strict=True))


def tokens(ids: Tensor, size: int = 32) -> Batches:
    """Batches for a causal language model."""
    return [{"input_ids": part, "labels": part} for part in ids.split(size)]


def reactions() -> list[str]:
    """Amide couplings: acid and amine give the amide. In a fixed random order."""
    rings = ("c1ccccc1", "c1ccncc1", "c1ccc(F)cc1", "c1ccc(Cl)cc1", "c1ccc(OC)cc1", "c1cccs1", "C1CCCCC1", "C1CCOCC1")
    chains = ("C", "CC", "CCC", "C(C)C", "C(C)(C)C", "CC(C)C", "COC", "CC#N", "CCOC", "C(F)(F)F")
    tails = [*rings, *chains, *(f"C{ring}" for ring in rings), *(f"CC{ring}" for ring in rings), "C=C", "CCCC"]
    acids = [f"O=C(O){tail}" for tail in tails]
    amines = [f"N{tail}" for tail in tails]
    made = [
        f"{acid}.{amine}>>O=C(N{b}){a}"
        for acid, a in zip(acids, tails, strict=True)
        for amine, b in zip(amines, tails, strict=True)
    ]
    order = np.random.default_rng(0).permutation(len(made))
    return [made[i] for i in order]


def masked(texts: Iterable[str], vocabulary: list[str], size: int = 16) -> Batches:
    """Batches for a masked language model: 15 % of the tokens are masked, the same ones in every pass."""
    pattern = re.compile(
        r"(\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|/|:|~|@|\?|>>?|\*|\$|%\d\d|\d)"
    )
    ids = {token: i for i, token in enumerate(vocabulary)}
    rows = [[ids["[CLS]"], *(ids[token] for token in pattern.findall(text)), ids["[SEP]"]] for text in texts]
    generator, batches = torch.Generator().manual_seed(0), []
    for start in range(0, len(rows), size):
        part = [torch.tensor(row) for row in rows[start : start + size]]
        inputs = nn.utils.rnn.pad_sequence(part, batch_first=True, padding_value=ids["[PAD]"])
        seen = inputs != ids["[PAD]"]
        inner = seen & (inputs != ids["[CLS]"]) & (inputs != ids["[SEP]"])
        hidden = inner & (torch.rand(inputs.shape, generator=generator) < 0.15)
        batches.append(
            {
                "input_ids": inputs.masked_fill(hidden, ids["[MASK]"]),
                "attention_mask": seen.long(),
                "labels": inputs.masked_fill(~hidden, -100),
            }
        )
    return batches
