"""Models in folders that `save_pretrained` of transformers wrote. Nothing is downloaded, and no code in them is run."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from howsparse.errors import InputError, first_line
from howsparse.integrations.quiet import quiet

__all__ = ["hub_folder", "load_hub_model", "load_pretrained"]

_PREFIX = "hf:"
_UNUSED = re.compile(r"(^|\.)(pooler|seq_relationship|position_ids|inv_freq|masked_bias|attn\.bias)(\.|$)")


def hub_folder(spec: str) -> Path | None:
    """The folder in ``hf:FOLDER``; None if ``spec`` has another form.

    Args:
        spec: a model, as on the command line.

    Returns:
        The folder, or None.

    >>> print(hub_folder("hf:nets"), hub_folder("package.module:name"))
    nets None
    """
    return Path(spec.removeprefix(_PREFIX)).expanduser() if spec.startswith(_PREFIX) else None


def load_hub_model(spec: str) -> nn.Module:
    """Load the model that ``hf:FOLDER`` names on a command line, as `load_pretrained` does.

    Args:
        spec: ``hf:FOLDER``.

    Returns:
        The model.

    Raises:
        InputError: ``spec`` has another form, or the folder has no model that can be read.

    >>> load_hub_model("hf:no-such-folder")
    Traceback (most recent call last):
    howsparse.errors.InputError: no folder 'no-such-folder'; give a folder that save_pretrained wrote
    """
    folder = hub_folder(spec)
    if folder is None:
        raise InputError(f"'{spec}' does not have the form hf:FOLDER; write it in this form")
    return load_pretrained(folder)


def load_pretrained(folder: str | Path) -> nn.Module:
    """Load a model of transformers with all its weights from a local folder, in evaluation mode.

    The class is the first of ``architectures`` in config.json. It must be a class of transformers: code in the folder
    is never run. Weights are read from safetensors files only, and keep the data type that they are stored in.

    Args:
        folder: folder with config.json, and with model.safetensors or its parts and their index.

    Returns:
        The model.

    Raises:
        InputError: a file is missing or damaged, transformers has no such class, a weight of the model is missing or
            has another shape, or the file has a weight that the model lacks. Weights of a part that does not change
            the logits, such as an unused pooler, are left out.
        ModuleNotFoundError: transformers is not installed.

    >>> load_pretrained("no-such-folder")
    Traceback (most recent call last):
    howsparse.errors.InputError: no folder 'no-such-folder'; give a folder that save_pretrained wrote
    """
    folder = Path(folder)
    name = _architecture(folder)
    _check_weight_files(folder, name)
    with quiet():
        kind = _class_of(name, folder)
        try:
            model, info = kind.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype="auto",
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
        except Exception as error:
            raise InputError(f"cannot load {name} from {folder}: {first_line(error)}; save the model again") from error
    _check_complete(info, model, folder)
    model.eval()
    return model  # type: ignore[no-any-return]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a file.

    Raises:
        InputError: the file is damaged or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON: {first_line(error)}; restore the file") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object; restore the file")
    return value


def _architecture(folder: Path) -> str:
    """Name of the class in config.json."""
    if not folder.is_dir():
        raise InputError(f"no folder '{folder}'; give a folder that save_pretrained wrote")
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"{folder} has a PEFT adapter (adapter_config.json); merge it first: model.merge_and_unload(), then"
            " save_pretrained"
        )
    if not (folder / "config.json").is_file():
        raise InputError(f"no config.json in {folder}; give a folder that save_pretrained wrote")
    config = read_json(folder / "config.json")
    if config.get("quantization_config"):
        raise InputError(f"the weights in {folder} are quantised; give the folder of the model before quantisation")
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise InputError(
            f'{folder}/config.json names no class; add it, for example "architectures": ["BertForMaskedLM"]'
        )
    return names[0]


def _check_weight_files(folder: Path, name: str) -> None:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return
    if not index.is_file():
        if any(folder.glob("*.bin")):
            raise InputError(
                f"{folder} has weights as a pickle (.bin) only, which could run code, so they are not loaded; if you"
                f" trust it, convert it: python -c \"from transformers import {name} as M; M.from_pretrained('{folder}'"
                f", use_safetensors=False).save_pretrained('{folder}')\""
            )
        raise InputError(f"no model.safetensors in {folder}; save the model by save_pretrained")
    parts = read_json(index).get("weight_map")
    missing = [part for part in sorted(set(parts.values())) if not (folder / part).is_file()] if parts else ["parts"]
    if missing:
        raise InputError(f"no {missing[0]} in {folder}, which {index.name} names; copy it there")


def _class_of(name: str, folder: Path) -> Any:
    import transformers

    try:
        kind = getattr(transformers, name, None)
    except ImportError as error:
        raise InputError(f"cannot import {name} of transformers: {first_line(error)}; upgrade transformers") from error
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel) or not hasattr(kind, "forward"):
        raise InputError(
            f"transformers {transformers.__version__} has no model class '{name}', which {folder}/config.json names;"
            " upgrade transformers, or load the model in Python (code in the folder is not run)"
        )
    return kind


def _check_complete(info: Mapping[str, Any], model: nn.Module, folder: Path) -> None:
    """Raise an error where transformers only warns: for weights that it initialised at random or did not use."""
    mismatched = sorted((key, tuple(stored), tuple(wanted)) for key, stored, wanted in info["mismatched_keys"])
    if mismatched:
        key, stored, wanted = mismatched[0]
        raise InputError(
            f"the weights in {folder} are of another model: '{key}' has shape {stored} in the file and {wanted} by"
            f" config.json{_more(mismatched)}; restore the file or config.json"
        )
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    if any(key.endswith("_orig") for key in unexpected):
        raise InputError(
            f"the model in {folder} was saved while torch.nn.utils.prune held its weights as weight_orig; save it again"
            " after torch.nn.utils.prune.remove, or after mask.apply_(model) instead of howsparse.prune"
        )
    if missing:
        raise InputError(
            f"the weights in {folder} lack '{missing[0]}' of {type(model).__name__}{_more(missing)}; give the folder"
            " of the whole model, or correct architectures in config.json"
        )
    unknown = [key for key in unexpected if not _UNUSED.search(key)]
    if unknown:
        raise InputError(
            f"the weights in {folder} have '{unknown[0]}', which {type(model).__name__} lacks{_more(unknown)}; correct"
            " config.json, or save the model again"
        )
    if info.get("error_msgs"):
        raise InputError(
            f"cannot load the weights in {folder}: {str(info['error_msgs'][0]).splitlines()[0]}; save the model again"
        )


def _more(names: Iterable[object]) -> str:
    count = len(list(names)) - 1
    return f" (and {count} more)" if count else ""
