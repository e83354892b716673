"""What ``--data`` may be for a model of Hugging Face: arrays, text, tables, or batches made in Python."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from howsparse.arrays import dict_batches, read_arrays, train_and_test
from howsparse.errors import InputError
from howsparse.integrations.expects import checked, fitting_size
from howsparse.integrations.tables import SUFFIXES, table_batches
from howsparse.integrations.texts import text_batches
from howsparse.loading import load_batches

__all__ = ["load_hub_data"]


def load_hub_data(spec: str, model: nn.Module, folder: Path, batch_size: int) -> tuple[Iterable[Any], Iterable[Any]]:
    """Load training and test batches for a model of Hugging Face.

    ``spec`` is one of these:

    - ``.safetensors`` or ``.npz``: arrays with the names of the model's arguments, such as ``input_ids`` or
      ``pixel_values``, and ``labels``; names of test data begin with ``test_``. A causal language model needs no
      labels.
    - ``.txt``: a text for a language model, see `text_batches`.
    - ``.parquet``, ``.json``, ``.csv`` or a folder: a table, see `table_batches`.
    - ``package.module:name``: batches, or a function that returns them, see `load_batches`.

    If there are no test data, the training batches are used for both.

    Args:
        spec: path of the data, or the name.
        model: a model of transformers.
        folder: its folder, with the tokenizer or the image processor.
        batch_size: examples in a batch; fewer if logits or activations would need more than 256 MiB.

    Returns:
        Training batches and test batches. They can be read several times and are the same in every pass.

    Raises:
        InputError: the data are missing, or do not fit the model.

    >>> load_hub_data("words.doc", nn.Linear(2, 2), Path("."), 8)
    Traceback (most recent call last):
    howsparse.errors.InputError: --data 'words.doc' is not known; give a .safetensors, .npz, .txt, .parquet, .json or
    .csv file, a folder of these tables, or package.module:name
    """
    path = Path(spec)
    if path.suffix in (".npz", ".safetensors"):
        return _array_batches(path, model, batch_size)
    if path.suffix == ".txt":
        made = text_batches(_text(path), model, folder, batch_size, path)
        return made, made
    if path.suffix in SUFFIXES and not path.exists():
        raise InputError(f"no data file at {path}; correct the path in --data")
    if path.suffix in SUFFIXES or path.is_dir():
        return table_batches(path, model, folder, batch_size)
    if ":" in spec:
        return load_batches(spec, batch_size)
    raise InputError(
        f"--data '{spec}' is not known; give a .safetensors, .npz, .txt, .parquet, .json or .csv file, a folder of"
        " these tables, or package.module:name"
    )


def _array_batches(path: Path, model: nn.Module, batch_size: int) -> tuple[Any, Any]:
    train, test = train_and_test(read_arrays(path))
    made = _split(checked(train, model, path), model, batch_size)
    return made, made if test is train else _split(checked(test, model, path), model, batch_size)


def _split(arrays: dict[str, Tensor], model: nn.Module, batch_size: int) -> list[dict[str, Tensor]]:
    first = arrays.get("input_ids", arrays.get("pixel_values", arrays["labels"]))
    return dict_batches(arrays, fitting_size(model, first.shape[1:], batch_size))


def _text(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"no data file at {path}; correct the path in --data")
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} is not text in UTF-8: {error}; convert it to UTF-8") from error
