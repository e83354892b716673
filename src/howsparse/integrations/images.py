"""Batches of images, prepared by the image processor in a model's folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.arrays import dict_batches
from howsparse.errors import InputError, first_line
from howsparse.integrations.expects import checked, fitting_size
from howsparse.integrations.quiet import quiet

__all__ = ["ImageBatches", "image_batches", "load_processor"]

_KEEP = 1 << 31  # bytes of prepared images that are kept in memory; more are prepared again in every pass
_FILE = "preprocessor_config.json"


def load_processor(folder: Path) -> Any:
    """Load the image processor of a model's folder. It needs no torchvision, and no code in the folder is run.

    Args:
        folder: folder of the model, with preprocessor_config.json.

    Returns:
        The image processor of transformers.

    Raises:
        InputError: there is none, or it is damaged.

    >>> from tempfile import TemporaryDirectory
    >>> settings = '{"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}'
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "preprocessor_config.json").write_text(settings)
    ...     processor = load_processor(Path(folder))
    >>> processor(torch.zeros(3, 20, 20), return_tensors="pt")["pixel_values"].shape
    torch.Size([1, 3, 8, 8])
    """
    if not (folder / _FILE).is_file():
        raise InputError(
            f"no image processor in {folder}: copy {_FILE} there, or give pixel_values and labels as .npz or"
            " .safetensors"
        )
    with quiet():
        from transformers import AutoImageProcessor

        try:
            return AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise InputError(f"cannot read {folder / _FILE}: {first_line(error)}; restore it") from error


@dataclass(frozen=True)
class ImageBatches:
    """Images that are prepared for the model while they are read. Every pass is the same.

    Attributes:
        table: a table of ``datasets``.
        column: its column of images.
        labels: their classes, ``(n,)``.
        model: a classifier of images of transformers.
        processor: its image processor.
        size: images in a batch.
        where: file of the images, for messages.

    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from transformers import ViTConfig, ViTForImageClassification
    >>> sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    >>> model = ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=2))
    >>> table = [{"image": Image.new("RGB", (20, 20), color)} for color in ("white", "black")]
    >>> settings = '{"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}'
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "preprocessor_config.json").write_text(settings)
    ...     processor = load_processor(Path(folder))
    >>> batches = ImageBatches(table, "image", torch.tensor([0, 1]), model, processor, size=1, where="table")
    >>> [(batch["pixel_values"].mean().item(), batch["labels"].item()) for batch in batches]
    [(1.0, 0), (-1.0, 1)]
    """

    table: Any
    column: str
    labels: Tensor
    model: nn.Module
    processor: Any
    size: int
    where: object

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for start in range(0, len(self.labels), self.size):
            pixels = self.prepared(start, min(start + self.size, len(self.labels)))
            arrays = {"pixel_values": pixels, "labels": self.labels[start : start + self.size]}
            yield checked(arrays, self.model, self.where)

    def prepared(self, start: int, end: int) -> Tensor:
        """The images from ``start`` to before ``end``, ``(n, channels, height, width)``.

        Args:
            start: position of the first image.
            end: position after the last image.

        Returns:
            The pixels as the processor gives them.

        Raises:
            InputError: the column holds something else than images, or the processor cannot read one.
        """
        mode = "L" if getattr(self.model.config, "num_channels", 3) == 1 else "RGB"
        images = [self.table[i][self.column] for i in range(start, end)]
        if not all(hasattr(image, "convert") for image in images):
            raise InputError(f"{self.where}: the column of images holds something else; store it as images")
        try:
            with quiet():
                made = self.processor(images=[image.convert(mode) for image in images], return_tensors="pt")
        except (ValueError, TypeError, OSError) as error:
            raise InputError(
                f"{self.where}: cannot prepare images {start} to {end - 1}: {first_line(error)}; replace them"
            ) from error
        pixels: Tensor = made["pixel_values"]
        return pixels


def image_batches(
    table: Any, column: str, labels: Tensor, model: nn.Module, folder: Path, batch_size: int, where: object
) -> "ImageBatches | list[dict[str, Tensor]]":
    """Batches of images with a label each, for a classifier of images.

    Args:
        table: a table of ``datasets``.
        column: its column of images.
        labels: their classes, ``(n,)``.
        model: a classifier of images of transformers.
        folder: its folder, with preprocessor_config.json.
        batch_size: images in a batch; fewer if they need much memory.
        where: file of the images, for messages.

    Returns:
        Batches of ``pixel_values`` ``(n, channels, height, width)`` and ``labels``. If all need at most 2 GiB they are
        prepared once, otherwise in every pass.

    Raises:
        InputError: the processor is missing, or its images or the labels do not fit the model.

    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from transformers import ViTConfig, ViTForImageClassification
    >>> sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    >>> model = ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=2))
    >>> table = [{"image": Image.new("RGB", (20, 20), color)} for color in ("white", "black")]
    >>> settings = '{"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}'
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "preprocessor_config.json").write_text(settings)
    ...     batches = image_batches(table, "image", torch.tensor([0, 1]), model, Path(folder), 2, "table")
    >>> [batch["pixel_values"].shape for batch in batches]
    [torch.Size([2, 3, 8, 8])]
    """
    processor = load_processor(folder)
    batches = ImageBatches(table, column, labels, model, processor, 1, where)
    first = batches.prepared(0, 1)
    batches = ImageBatches(
        table, column, labels, model, processor, fitting_size(model, first.shape[1:], batch_size), where
    )
    if first.nbytes * len(labels) > _KEEP:
        checked({"pixel_values": first, "labels": labels[:1]}, model, where)
        return batches
    pixels = torch.cat([batch["pixel_values"] for batch in batches])
    return dict_batches({"pixel_values": pixels, "labels": labels}, batches.size)
