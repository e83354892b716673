"""Batches from tables of texts or images with labels: parquet, JSON or CSV files, or a folder of them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError, first_line
from howsparse.integrations.expects import task_of
from howsparse.integrations.images import image_batches
from howsparse.integrations.texts import label_batches, text_batches

__all__ = ["SUFFIXES", "table_batches"]

SUFFIXES = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}
_TEXTS, _IMAGES, _LABELS = ("text", "sentence"), ("image", "img"), ("label", "labels")


def table_batches(
    path: Path, model: nn.Module, folder: Path, batch_size: int
) -> tuple[Iterable[dict[str, Tensor]], Iterable[dict[str, Tensor]]]:
    """Load the training and test batches of a table, or of a folder that ``datasets`` can read.

    A classifier of texts needs the columns text (or sentence) and label. A classifier of images needs image (or img)
    and label. A language model needs text; its rows are joined by newlines. The test split is test or validation; if
    there is one split, it is used for both. Labels that have the names of the model's classes are matched by name.

    Args:
        path: a .parquet, .json, .jsonl or .csv file, or a folder.
        model: a model of transformers.
        folder: its folder, with the tokenizer or the image processor.
        batch_size: examples in a batch; fewer if they need much memory.

    Returns:
        Training batches and test batches.

    Raises:
        InputError: the table cannot be read, or its columns or values do not fit the model.
        ModuleNotFoundError: datasets is not installed.
    """
    splits = _splits(path)
    train = splits["train"] if "train" in splits else next(iter(splits.values()))
    test = next((splits[name] for name in ("test", "validation", "valid") if name in splits), train)
    made = _batches(train, model, folder, batch_size, path)
    return made, made if test is train else _batches(test, model, folder, batch_size, path)


def _splits(path: Path) -> dict[str, Any]:
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        if path.is_file():
            found = datasets.load_dataset(SUFFIXES[path.suffix], data_files=str(path))
        elif any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(str(path))
        else:
            found = datasets.load_dataset(str(path))
    except Exception as error:
        raise InputError(
            f"cannot read the data in {path}: {first_line(error)}; give a parquet, json or csv file"
        ) from error
    finally:
        if shown:
            datasets.enable_progress_bars()
    splits = {"train": found} if isinstance(found, datasets.Dataset) else dict(found)
    if not splits or not all(len(table) for table in splits.values()):
        raise InputError(f"{path} has a split without rows; store at least one row")
    return splits


def _batches(table: Any, model: nn.Module, folder: Path, batch_size: int, where: Path) -> Iterable[dict[str, Tensor]]:
    task = task_of(model)
    if task in ("causal", "masked"):
        return text_batches("\n".join(_texts(table, where)), model, folder, batch_size, where)
    if task == "text":
        return label_batches(_texts(table, where), _labels(table, model, where), model, folder, batch_size, where)
    if task == "images":
        column, labels = _column(table, _IMAGES, where), _labels(table, model, where)
        return image_batches(table, column, labels, model, folder, batch_size, where)
    raise InputError(
        f"a table cannot be made into batches for {type(model).__name__}; give its arguments and labels as .npz or"
        " .safetensors, or package.module:batches"
    )


def _column(table: Any, names: tuple[str, ...], where: Path) -> str:
    found = [name for name in names if name in table.column_names]
    if not found:
        raise InputError(
            f"{where} has no column '{names[0]}' (it has: {', '.join(table.column_names)}); add or rename it"
        )
    return found[0]


def _texts(table: Any, where: Path) -> list[str]:
    column = _column(table, _TEXTS, where)
    texts = list(table[column])
    wrong = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        raise InputError(f"{where}: row {wrong} of column '{column}' is no text; remove the row")
    return texts


def _labels(table: Any, model: nn.Module, where: Path) -> Tensor:
    """The classes of all rows as the model numbers them."""
    column = _column(table, _LABELS, where)
    labels = list(table[column])
    known: dict[str, int] = dict(getattr(model.config, "label2id", None) or {})
    names = getattr(table.features[column], "names", None)
    if names and set(names) == set(known):
        labels = [names[label] if isinstance(label, int) and label >= 0 else label for label in labels]
    labels = [known.get(label, label) if isinstance(label, str) else label for label in labels]
    wrong = next((i for i, label in enumerate(labels) if not isinstance(label, int)), None)
    if wrong is not None:
        raise InputError(
            f"{where}: label {labels[wrong]!r} of row {wrong} is no class of the model; use one of: {', '.join(known)}"
        )
    return torch.tensor(labels, dtype=torch.long)
