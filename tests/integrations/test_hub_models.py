"""Models that save_pretrained wrote come back whole, or are refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from howsparse import magnitude_mask, prune
from howsparse.errors import InputError
from howsparse.integrations.huggingface import hub_folder, load_hub_model, load_pretrained
from howsparse.integrations.quiet import quiet
from pretrained_for_tests import KINDS, batches_for, saved, tiny

GPT2 = "transformer.h.0.mlp.c_fc.weight"


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_comes_back_to_the_bit(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = saved(kind, tmp_path)
    capfd.readouterr()
    loaded = load_hub_model(f"hf:{tmp_path}")
    assert type(loaded) is type(model)
    assert not loaded.training
    assert capfd.readouterr() == ("", "")
    batch = {name: value for name, value in batches_for(kind)[0].items() if name != "labels"}
    batch = {name: value.float() if value.is_floating_point() else value for name, value in batch.items()}
    assert torch.equal(model.eval()(**batch).logits, loaded(**batch).logits)


def test_data_type_and_ties_are_kept(tmp_path: Path) -> None:
    saved("llama", tmp_path, torch.bfloat16)
    model: Any = load_pretrained(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_parts_with_an_index(tmp_path: Path) -> None:
    model: Any = tiny("bert", torch.float32)
    with quiet():
        model.save_pretrained(tmp_path, max_shard_size="1KB")
    assert not (tmp_path / "model.safetensors").exists()
    loaded = load_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    next(tmp_path.glob("model-00002-*")).unlink()
    with pytest.raises(InputError, match=r"^no model-00002-of-\d+\.safetensors in .* copy it there$"):
        load_pretrained(tmp_path)


def test_a_pooler_that_the_class_lacks_is_left_out(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    change_weights(tmp_path, lambda state: state | {"bert.pooler.dense.weight": torch.zeros(8, 8)})
    assert type(load_pretrained(tmp_path)).__name__ == "BertForMaskedLM"


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = folder / "model.safetensors"
    state = change({name: tensor.clone() for name, tensor in load_file(file).items()})
    save_file(state, file, {"format": "pt"})


def change_config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def rename(state: dict[str, torch.Tensor], name: str, other: str) -> dict[str, torch.Tensor]:
    state[other] = state.pop(name)
    return state


def to_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, r"no folder '.*'; give a folder"),
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json in"),
    "damaged config": (lambda f: cut(f / "config.json", 30), "is not readable JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "holds no JSON object"),
    "no architecture": (lambda f: change_config(f, architectures=None), "names no class; add it"),
    "unknown architecture": (
        lambda f: change_config(f, architectures=["MyForCausalLM"], auto_map={"AutoModel": "m.MyForCausalLM"}),
        "has no model class 'MyForCausalLM'",
    ),
    "a class that is no model": (lambda f: change_config(f, architectures=["GPT2Config"]), "no model class 'GPT2Conf"),
    "quantised": (lambda f: change_config(f, quantization_config={"bits": 4}), "are quantised"),
    "an adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "merge it first"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors in"),
    "a pickle": (to_pickle, r"pickle \(.bin\) only.*convert it: python -c .*GPT2LMHeadModel"),
    "damaged index": (
        lambda f: (f / "model.safetensors").replace(f / "a") and (f / "model.safetensors.index.json").write_text("{}"),
        "no parts in",
    ),
    "truncated weights": (lambda f: cut(f / "model.safetensors", 3000), "cannot load GPT2LMHeadModel from .*header"),
    "empty weights": (lambda f: cut(f / "model.safetensors", 0), "cannot load GPT2LMHeadModel from"),
    "a missing weight": (
        lambda f: change_weights(f, lambda s: {n: t for n, t in s.items() if n != GPT2}),
        f"lack '{GPT2}' of GPT2LMHeadModel; give",
    ),
    "an unexpected weight": (
        lambda f: change_weights(f, lambda s: s | {"transformer.h.0.extra.weight": torch.zeros(1)}),
        "have 'transformer.h.0.extra.weight', which GPT2LMHeadModel lacks; correct",
    ),
    "a layer more": (
        lambda f: change_config(f, n_layer=1),
        r"have 'transformer.h.1.attn.c_attn.weight', which GPT2LMHeadModel lacks \(and 10 more\)",
    ),
    "another shape": (
        lambda f: change_weights(f, lambda s: s | {GPT2: torch.zeros(3, 8)}),
        rf"'{GPT2}' has shape \(3, 8\) in the file and \(8, 32\) by config.json; restore",
    ),
    "saved while pruned": (
        lambda f: change_weights(f, lambda s: rename(s, GPT2, f"{GPT2}_orig")),
        "saved while torch.nn.utils.prune held its weights",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_folders_are_refused_in_one_line(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "net"
    saved("gpt2", folder)
    spoil, message = BAD[name]
    spoil(folder)
    capfd.readouterr()
    with pytest.raises(InputError, match=message) as caught:
        load_pretrained(folder)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_names_on_a_command_line() -> None:
    assert hub_folder("hf:a/b") == Path("a/b")
    assert hub_folder("a.b:c") is None
    with pytest.raises(InputError, match="does not have the form hf:FOLDER"):
        load_hub_model("a.b:c")


def test_messages_of_the_library_are_restored() -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with pytest.raises(KeyError), quiet():
        raise KeyError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_prune_warns_of_save_pretrained_and_its_folder_is_refused(tmp_path: Path) -> None:
    model: Any = tiny("gpt2", torch.float32)
    with pytest.warns(UserWarning, match=r"use mask\.apply_\(model\) instead of prune"):
        prune(model, magnitude_mask(model, 0.5))
    with quiet():
        model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"saved while torch\.nn\.utils\.prune held its weights"):
        load_pretrained(tmp_path)


def test_apply_and_save_pretrained_keeps_the_model(tmp_path: Path) -> None:
    model: Any = tiny("gpt2", torch.float32)
    magnitude_mask(model, 0.5).apply_(model)
    with quiet():
        model.save_pretrained(tmp_path)
    ids = torch.arange(12).view(2, 6)
    assert torch.equal(load_pretrained(tmp_path)(ids).logits, model.eval()(ids).logits)
