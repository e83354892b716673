"""Pruned models are saved so that from_pretrained gives the same bits, with their mask and a card."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from howsparse import Mask, magnitude_mask, measure, prune
from howsparse.errors import InputError
from howsparse.integrations.card import card_block, model_card
from howsparse.integrations.huggingface import load_pretrained
from howsparse.integrations.saving import save_pruned
from howsparse.limit.certify import certify
from pretrained_for_tests import KINDS, batches_for, save_tokenizer, saved, tiny


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_reloaded_logits_are_equal_to_the_bit(kind: str, tmp_path: Path) -> None:
    model: Any = tiny(kind, torch.float32).train()
    before, config = state(model), copy.deepcopy(vars(model.config))
    mask = magnitude_mask(model, 0.6)
    save_pruned(model, mask, tmp_path / "out")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert vars(model.config) == config
    loaded = load_pretrained(tmp_path / "out")
    expected = copy.deepcopy(model)
    mask.apply_(expected)
    batch = {n: t.float() if t.is_floating_point() else t for n, t in batches_for(kind)[0].items() if n != "labels"}
    assert torch.equal(loaded(**batch).logits, expected.eval()(**batch).logits)
    assert not any(bool(dict(loaded.named_parameters())[name][~kept].any()) for name, kept in mask.items())
    again = Mask.load(tmp_path / "out/mask.safetensors")
    assert all(torch.equal(again[name], kept) for name, kept in mask.items())


def test_ties_stay_ties(tmp_path: Path) -> None:
    model = tiny("llama", torch.bfloat16)
    save_pruned(model, magnitude_mask(model, 0.5), tmp_path / "out")
    loaded: Any = load_pretrained(tmp_path / "out")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert loaded.dtype == torch.bfloat16


def test_tokenizer_and_card_come_from_the_source(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    source, out = tmp_path / "source", tmp_path / "out"
    model = saved("gpt2", source)
    save_tokenizer(source)
    (source / "README.md").write_text("---\nlicense: mit\ntags: [stories]\n---\n# Mine\n\nText.\n")
    (source / "modeling_mine.py").write_text("raise SystemExit\n")
    save_pruned(model, magnitude_mask(model, 0.5), out, "Half of it.", source=source)
    assert AutoTokenizer.from_pretrained(out)("a c")["input_ids"] == [5, 7]
    assert not (out / "modeling_mine.py").exists()
    _, header, body = (out / "README.md").read_text().split("---\n", 2)
    fields = {"license": "mit", "tags": ["stories", "pruned"], "library_name": "transformers"}
    assert yaml.safe_load(header) == fields
    assert body == "# Mine\n\nText.\n\n<!-- howsparse -->\nHalf of it.\n<!-- /howsparse -->\n"


def test_an_existing_folder_is_replaced_only_by_force(tmp_path: Path) -> None:
    model: Any = tiny("gpt2", torch.float32)
    out = tmp_path / "out"
    save_pruned(model, magnitude_mask(model, 0.5), out, "First.")
    (out / "notes.txt").write_text("mine")
    (out / "model-00001-of-00002.safetensors").write_text("of an earlier model")
    text = (out / "README.md").read_text().replace("# Pruned model", "# My words") + "\nMore of my words.\n"
    (out / "README.md").write_text(text)
    with pytest.raises(InputError, match="exists; choose another --output, or use --force"):
        save_pruned(model, magnitude_mask(model, 0.6), out, "Second.")
    save_pruned(model, magnitude_mask(model, 0.6), out, "Second.", force=True)
    assert (out / "README.md").read_text() == text.replace("First.", "Second.")
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "model-00001-of-00002.safetensors").exists()
    assert Mask.load(out / "mask.safetensors").sparsity == pytest.approx(0.6, abs=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_stop_leaves_nothing_and_restores_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny("gpt2", torch.float32)
    before = state(model)

    def stop(folder: Path) -> None:
        folder.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save_pretrained", stop)
    with pytest.raises(KeyboardInterrupt):
        save_pruned(model, magnitude_mask(model, 0.5), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_models_that_cannot_be_saved_are_refused(tmp_path: Path) -> None:
    model: Any = tiny("gpt2", torch.float32)
    mask = magnitude_mask(model, 0.5)
    with pytest.raises(InputError, match="not a prunable weight of this model"):
        save_pruned(model, Mask(fc=torch.ones(2, dtype=torch.bool)), tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; give a folder"):
        save_pruned(model, mask, tmp_path / "file", force=True)
    with pytest.warns(UserWarning, match="save_pretrained"):
        prune(model, mask)
    with pytest.raises(InputError, match=r"torch\.nn\.utils\.prune holds the model's weights"):
        save_pruned(model, mask, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class TestCard:
    def test_numbers_are_those_that_were_measured(self) -> None:
        model: Any = tiny("text")
        batches = batches_for("text", (8, 8))
        measured = measure(model, batches, max_rise=0.05, scan=[0.25, 0.5])
        mask = magnitude_mask(model, 0.5)
        at = next(point for point in measured.curve if point.sparsity == 0.5)
        text = card_block(mask, measured=measured, certificate="With 95 % confidence.", command="howsparse prune x")
        removed = f"50.00 % of its prunable weights ({mask.num_weights - mask.num_kept:,} of {mask.num_weights:,})"
        assert removed in text
        assert "Order of removal: magnitude. Goal: the loss rises by at most 5 %." in text
        assert f"| loss | {measured.dense.loss:.4f} | {at.loss:.4f} |" in text
        assert f"| accuracy | {measured.dense.accuracy:.4f} | {at.accuracy:.4f} |" in text
        assert text.endswith("On held-out data: With 95 % confidence.\n\nCommand: `howsparse prune x`")

    def test_a_network_that_was_not_measured_gets_no_numbers(self) -> None:
        model: Any = tiny("text")
        measured = measure(model, batches_for("text"), max_rise=0.05, scan=[0.25, 0.5])
        assert "| loss |" not in card_block(magnitude_mask(model, 0.77), measured=measured)

    def test_sentence_of_a_certificate(self) -> None:
        model = nn.Linear(2, 2, bias=False)
        model.weight.data = torch.tensor([[4.0, 0.1], [0.1, 4.0]])
        held_out = [(torch.eye(2).repeat(300, 1), torch.tensor([0, 1]).repeat(300))]
        certificate = certify(model, held_out, max_drop=0.01)
        assert certificate.sentence in card_block(magnitude_mask(model, 0.5), certificate=certificate)

    def test_header_that_has_all_stays_to_the_letter(self) -> None:
        header = "---\ntags:   [pruned]  # mine\nlibrary_name: timm\n---\n"
        assert model_card(f"{header}Text.\n", "Block.").startswith(f"{header}Text.\n")

    def test_rules_in_the_text_are_no_header(self) -> None:
        text = model_card("# Mine\n\n---\ntags: x\n---\n", "Block.")
        assert yaml.safe_load(text.split("---\n")[1]) == {"library_name": "transformers", "tags": ["pruned"]}
        assert "# Mine\n\n---\ntags: x\n---\n" in text

    @pytest.mark.parametrize("header", ["a: [", "- a\n- b"])
    def test_damaged_headers_are_refused(self, header: str) -> None:
        with pytest.raises(InputError, match=r"^the header of README\.md is not .*; correct it$"):
            model_card(f"---\n{header}\n---\nText.", "Block.")

    def test_the_hubs_own_library_reads_it(self) -> None:
        from huggingface_hub import ModelCard

        card = ModelCard(model_card("# Mine\n", "Block."), ignore_metadata_errors=False)
        assert vars(card.data)["tags"] == ["pruned"]
        assert vars(card.data)["library_name"] == "transformers"
