"""Image data in memory. Images are decoded once, and batches are augmented by a few tensor operations."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from howsparse.errors import InputError, first_line
from howsparse.tasks.recipe import Data

__all__ = ["Batches", "Images", "ShuffledBatches", "load_images"]

Pixels = NDArray[np.uint8]

_PAD = 4  # padding of the random crop in pixels on each side, as in the paper
_DECODE = 1000  # number of images that are decoded together


@dataclass(frozen=True)
class Images:
    """The images of one split, with the mean and the standard deviation for their normalisation.

    Attributes:
        pixels: ``(n, channels, height, width)``, uint8.
        labels: ``(n,)``, int64.
        mean, std: mean and standard deviation of each channel, for pixels in [0, 1].
    """

    pixels: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """Short digest of pixels and labels."""
        digest = hashlib.sha256(self.pixels.cpu().numpy().tobytes())
        digest.update(self.labels.cpu().numpy().tobytes())
        return digest.hexdigest()[:12]

    def first(self, count: int) -> "Images":
        """The first ``count`` images."""
        return Images(self.pixels[:count], self.labels[:count], self.mean, self.std)

    def to(self, device: torch.device) -> "Images":
        """The same images on ``device``. Batches are then also computed on this device."""
        return Images(self.pixels.to(device), self.labels.to(device), self.mean, self.std)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Convert ``pixels`` to float32 images with mean 0 and standard deviation 1."""
        scale, shift = self._scale_and_shift
        return pixels.float().mul_(scale).sub_(shift)

    @cached_property
    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Factor and offset of the normalisation, stored because a copy to a GPU in every batch takes time."""
        scale = torch.tensor([1 / (255 * s) for s in self.std]).view(-1, 1, 1)
        shift = torch.tensor([m / s for m, s in zip(self.mean, self.std, strict=True)]).view(-1, 1, 1)
        return scale.to(self.pixels.device), shift.to(self.pixels.device)


@dataclass(frozen=True)
class Batches:
    """``(input, target)`` batches in the order of the data, which can be read several times, for `pruning_limit`.

    >>> images = Images(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.arange(5), (0.0,), (1.0,))
    >>> [len(target) for _, target in Batches(images, size=2)]
    [2, 2, 1]
    """

    images: Images
    size: int = 128

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    @property
    def num_examples(self) -> int:
        """Number of images in one pass."""
        return len(self.images)

    @property
    def digest(self) -> str:
        """Short digest of the images."""
        return self.images.digest

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.images), self.size):
            part = slice(start, start + self.size)
            yield self.images.normalised(self.images.pixels[part]), self.images.labels[part]


@dataclass(frozen=True)
class ShuffledBatches:
    """Training batches: ``batches(seed, epoch)`` yields one shuffled pass, optionally with augmentation.

    An epoch does not depend on earlier epochs. A training that continues from any epoch therefore gives the same bits.
    """

    images: Images
    size: int
    augment: bool = False

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __call__(self, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.images.pixels.device
        # Random numbers are drawn on the CPU, so they are the same for every device. One copy moves them to a GPU.
        generator = torch.Generator().manual_seed(_mixed(seed, epoch))
        order = torch.randperm(len(self.images), generator=generator).to(device)
        moves, windows = (self._moves(generator).to(device), self._windows()) if self.augment else (None, None)
        for start in range(0, len(order), self.size):
            part = slice(start, start + self.size)
            index = order[part]
            if moves is None or windows is None:
                pixels = self.images.pixels[index]
            else:
                pixels = _crop_and_flip(windows, index, *moves[:, part])
            yield self.images.normalised(pixels), self.images.labels[index]

    def settings(self) -> dict[str, object]:
        """All settings of the batches except the images, for records."""
        return {"batch_size": self.size, "augment": self.augment}

    def _moves(self, generator: torch.Generator) -> Tensor:
        """``(3, n)``: vertical offset, horizontal offset and flip (0 or 1) of each image of the pass."""
        sizes = [min(self.size, len(self.images) - start) for start in range(0, len(self.images), self.size)]
        return torch.cat([_draw_moves(size, generator) for size in sizes], 1)

    def _windows(self) -> Tensor:
        """A view of every crop of every image: ``(n, channels, 2 pad + 1, 2 pad + 1, height, width)``."""
        _, _, height, width = self.images.pixels.shape
        padded = torch.nn.functional.pad(self.images.pixels, (_PAD, _PAD, _PAD, _PAD))
        return padded.unfold(2, height, 1).unfold(3, width, 1)


def _mixed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


def _draw_moves(count: int, generator: torch.Generator) -> Tensor:
    offsets = torch.randint(2 * _PAD + 1, (2, count), generator=generator)
    flip = torch.rand(1, count, generator=generator) < 0.5
    return torch.cat([offsets, flip.long()])


def _crop_and_flip(windows: Tensor, index: Tensor, down: Tensor, right: Tensor, flip: Tensor) -> Tensor:
    pixels = windows[index, :, down, right]
    return torch.where(flip.bool().view(-1, 1, 1, 1), pixels.flip(-1), pixels)


def load_images(data: Data, source: str | None = None, first: int | None = None) -> tuple[Images, Images]:
    """Load the training and test images of a recipe.

    Args:
        data: the recipe's data.
        source: name of a data set on the hub, or a folder; by default the recipe's source.
        first: number of images of each split, the first ones; by default all.

    Returns:
        Training images and test images.

    Raises:
        InputError: the data cannot be found, or do not have the recipe's splits or columns.
    """
    source = source or data.source
    if source == "digits":
        train, test = _load_digits(data)
        return (train, test) if first is None else (train.first(first), test.first(first))
    return _load_dataset(data, source, first)


def _load_digits(data: Data) -> tuple[Images, Images]:
    """A fixed split of scikit-learn's 1,797 images into 1,437 for training and 360 for testing."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = torch.from_numpy((digits.images * (255 / 16)).round().astype(np.uint8))[:, None]
    labels = torch.from_numpy(digits.target.astype(np.int64))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:1437], order[1437:]
    return (
        Images(pixels[train], labels[train], data.mean, data.std),
        Images(pixels[test], labels[test], data.mean, data.std),
    )


def _load_dataset(data: Data, source: str, first: int | None) -> tuple[Images, Images]:
    import datasets

    datasets.disable_progress_bars()
    try:
        splits = datasets.load_dataset(source)
    except Exception as error:
        kind = "folder" if Path(source).exists() else "data set (neither a local folder nor found on the hub)"
        raise InputError(
            f"cannot load the {kind} '{source}': {first_line(error)}; give --data a folder or a hub name"
        ) from error
    return _decode(splits, data, data.train, source, first), _decode(splits, data, data.test, source, first)


def _decode(splits: "dict[str, object]", data: Data, split: str, source: str, first: int | None) -> Images:
    from datasets import Dataset

    # For a folder without a data set card, the split of the file valid-*.parquet is named "validation".
    table = splits.get(split, splits.get("validation") if split == "valid" else None)
    if not isinstance(table, Dataset):
        raise InputError(f"data set '{source}' has no split '{split}'; it has: {', '.join(splits)}")
    missing = {data.image, data.label} - set(table.column_names)
    if missing:
        raise InputError(
            f"data set '{source}' has no column '{missing.pop()}'; it has: {', '.join(table.column_names)}"
        )
    table = table if first is None else table.select(range(min(first, len(table))))
    rows = table.with_format("numpy")
    if not len(table):
        raise InputError(
            f"split '{split}' of data set '{source}' has no images; give another one by the recipe's train and test"
        )
    try:
        parts = [_stacked(rows[i : i + _DECODE][data.image]) for i in range(0, len(table), _DECODE)]
        labels = _whole(rows[data.label])
    except (OSError, ValueError, TypeError, SyntaxError, ArithmeticError) as error:  # what decoders of images raise
        raise InputError(
            f"data set '{source}', split '{split}', has a broken image or label: {first_line(error)}; replace it"
        ) from error
    if len({part.ndim for part in parts}) > 1:
        parts = [_coloured(part) if part.ndim == 3 else part for part in parts]
    if len({(part.dtype, part.shape[1:]) for part in parts}) > 1 or parts[0].dtype != np.uint8:
        raise InputError(
            f"column '{data.image}' of data set '{source}', split '{split}', must hold 8-bit images, all of one size;"
            " convert them"
        )
    pixels = torch.from_numpy(np.concatenate(parts))
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.shape[-1] != len(data.mean):
        raise InputError(
            f"images of data set '{source}' have {pixels.shape[-1]} channels, the recipe's mean has {len(data.mean)};"
            " give as many numbers as channels"
        )
    return Images(pixels.permute(0, 3, 1, 2).contiguous(), labels, data.mean, data.std)


def _whole(column: object) -> Tensor:
    """The labels of a column: a whole number for each image. An array of fractions would be cut off without a word."""
    given, labels = np.asarray(column), np.asarray(column, dtype=np.int64)
    if labels.ndim != 1 or (given.dtype.kind == "f" and (given != labels).any()):
        raise ValueError("labels must be whole numbers, one for each image")
    return torch.from_numpy(labels)


def _stacked(images: Sequence[Pixels]) -> Pixels:
    """Join images to one array. If only some images are grey, as in TinyImageNet, these get three channels."""
    if len({image.ndim for image in images}) > 1:
        images = [_coloured(image) if image.ndim == 2 else image for image in images]
    return np.asarray(images, dtype=object if len({image.shape for image in images}) > 1 else None)


def _coloured(grey: Pixels) -> Pixels:
    return np.repeat(grey[..., None], 3, axis=-1)
