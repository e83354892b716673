"""Batches from arrays, texts and tables against transformers' own losses and closed forms, and bad data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.integrations.data import load_hub_data
from howsparse.integrations.expects import fitting_size, positions, task_of
from howsparse.loading import load_batches
from howsparse.risk.evaluate import evaluate
from pretrained_for_tests import CLASSES, VOCABULARY, batches_for, save_tokenizer, saved


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own cache of tables stays clean."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


LETTERS = [chr(ord("a") + i) for i in range(VOCABULARY - 5)]


def text_of(count: int) -> tuple[str, list[int]]:
    """A text of single letters, and their ids by `save_tokenizer`."""
    draws = torch.randint(len(LETTERS), (count,), generator=torch.Generator().manual_seed(3)).tolist()
    return " ".join(LETTERS[i] for i in draws), [5 + i for i in draws]


def save_npz(path: Path, tensors: dict[str, Tensor]) -> None:
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    np.savez(path, **arrays)


def own_loss(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """The loss that transformers computes itself."""
    with torch.no_grad():
        return float(model.eval()(**batch).loss)


class TestArrays:
    @pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "text", "vit"])
    @pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
    def test_loss_is_that_of_transformers(self, kind: str, suffix: str, tmp_path: Path) -> None:
        model = saved(kind, tmp_path)
        batch = {n: t.float() if t.is_floating_point() else t.int() for n, t in batches_for(kind, (5,))[0].items()}
        path = tmp_path / f"data{suffix}"
        if suffix == ".npz":
            save_npz(path, batch)
        else:
            save_file(batch, path)
        train, test = load_hub_data(str(path), model, tmp_path, 2)
        assert test is train
        assert [len(each["labels"]) for each in train] == [2, 2, 1]
        expected = own_loss(model, {n: t if t.is_floating_point() else t.long() for n, t in batch.items()})
        assert evaluate(model, train)[0] == pytest.approx(expected, rel=1e-5)

    def test_labels_of_a_causal_model_are_its_tokens_where_the_mask_is_1(self, tmp_path: Path) -> None:
        model = saved("llama", tmp_path)
        batch = batches_for("llama", (4,))[0]
        save_file({name: t for name, t in batch.items() if name != "labels"}, tmp_path / "d.safetensors")
        ((made,), _) = load_hub_data(str(tmp_path / "d.safetensors"), model, tmp_path, 8)
        assert torch.equal(made["labels"], batch["labels"])

    def test_test_split_and_data_type(self, tmp_path: Path) -> None:
        model = saved("vit", tmp_path, torch.bfloat16)
        first, second = ({n: t.float() for n, t in b.items()} for b in batches_for("vit", (3, 2)))
        arrays = first | {f"test_{name}": tensor for name, tensor in second.items()}
        arrays |= {name: arrays[name].byte() for name in ("labels", "test_labels")}
        save_npz(tmp_path / "d.npz", arrays)
        train, test = load_hub_data(str(tmp_path / "d.npz"), model, tmp_path, 8)
        assert [len(next(iter(split))["labels"]) for split in (train, test)] == [3, 2]
        assert next(iter(train))["pixel_values"].dtype == torch.bfloat16
        assert evaluate(model, test)[1] is not None

    def test_named_arrays_need_no_folder(self, tmp_path: Path) -> None:
        batch = batches_for("text", (3,))[0]
        save_npz(tmp_path / "d.npz", batch)
        train, _ = load_batches(str(tmp_path / "d.npz"), 2)
        assert [sorted(each) for each in train] == [["attention_mask", "input_ids", "labels"]] * 2


class TestText:
    @pytest.mark.parametrize(("kind", "length"), [("gpt2", 16), ("llama", 512)])
    def test_blocks_are_consecutive(self, kind: str, length: int, tmp_path: Path) -> None:
        model, (text, ids) = saved(kind, tmp_path), text_of(1100)
        save_tokenizer(tmp_path)
        (tmp_path / "t.txt").write_text(text)
        train, test = load_hub_data(str(tmp_path / "t.txt"), model, tmp_path, 8)
        batches = list(train)
        assert test is train
        assert {batch["input_ids"].shape[1] for batch in batches[:-1]} == {length}
        assert torch.cat([batch["input_ids"].flatten() for batch in batches]).tolist() == ids
        tokens = sum(batch["labels"][:, 1:].numel() for batch in batches)
        total = sum(own_loss(model, batch) * batch["labels"][:, 1:].numel() for batch in batches)
        assert evaluate(model, train)[0] == pytest.approx(total / tokens, rel=1e-5)

    def test_masked_tokens_are_as_in_berts_training(self, tmp_path: Path) -> None:
        model, (text, ids) = saved("bert", tmp_path), text_of(14 * 1000)
        save_tokenizer(tmp_path)
        (tmp_path / "t.txt").write_text(text)
        made, again = (load_hub_data(str(tmp_path / "t.txt"), model, tmp_path, 400)[0] for _ in range(2))
        tokens, labels = (torch.cat([batch[name] for batch in made]) for name in ("input_ids", "labels"))
        assert torch.equal(tokens, torch.cat([batch["input_ids"] for batch in again]))
        assert tokens.shape == (1000, 16)
        assert set(tokens[:, 0].tolist()) == {2}
        assert set(tokens[:, -1].tolist()) == {3}
        counted = labels != -100
        assert counted.sum(1).tolist() == [2] * 1000  # 15 % of 14, rounded
        assert torch.where(counted, labels, tokens)[:, 1:-1].flatten().tolist() == ids
        masked = float((tokens[counted] == 4).double().mean())
        kept = float((tokens[counted] == labels[counted]).double().mean())
        # 10 % are drawn from 19 tokens, of which one is the mask and one is the token itself; 4 standard deviations
        assert masked == pytest.approx(0.8 + 0.1 / 19, abs=4 * (0.8 * 0.2 / 2000) ** 0.5)
        assert kept == pytest.approx(0.1 + 0.1 / 19, abs=4 * (0.1 * 0.9 / 2000) ** 0.5)
        assert evaluate(model, made)[0] == pytest.approx(
            sum(own_loss(model, b) * len(b["labels"]) for b in made) / 1000, rel=1e-5
        )

    def test_rows_of_a_table_are_joined(self, tmp_path: Path) -> None:
        model = saved("gpt2", tmp_path)
        save_tokenizer(tmp_path)
        (tmp_path / "t.jsonl").write_text('{"text": "a b c"}\n{"text": "d e"}\n')
        ((batch,), _) = load_hub_data(str(tmp_path / "t.jsonl"), model, tmp_path, 4)
        assert batch["labels"].tolist() == [[5, 6, 7, 8, 9]]


class TestTables:
    def test_texts_with_labels(self, tmp_path: Path) -> None:
        model = saved("text", tmp_path)
        save_tokenizer(tmp_path)
        (tmp_path / "d").mkdir()
        (tmp_path / "d/train.csv").write_text(f"text,label\na b c,2\nd,0\n{' '.join('e' * 40)},1\n")
        (tmp_path / "d/test.csv").write_text("text,label\nb a,1\n")
        train, test = load_hub_data(str(tmp_path / "d"), model, tmp_path, 2)
        first, second = train
        assert first["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
        assert first["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
        assert first["labels"].tolist() == [2, 0]
        assert second["input_ids"].tolist() == [[9] * 16]
        assert [batch["input_ids"].tolist() for batch in test] == [[[6, 5]]]

    @pytest.mark.parametrize("by_class_label", [True, False])
    def test_labels_are_matched_by_name(self, by_class_label: bool, tmp_path: Path) -> None:
        model: Any = saved("text", tmp_path)
        save_tokenizer(tmp_path)
        model.config.label2id = {"bad": 0, "good": 1, "fair": 2}
        table = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": ["good", "bad", "fair"]})
        if by_class_label:
            table = table.cast_column("label", datasets.ClassLabel(names=["good", "fair", "bad"]))
        table.save_to_disk(str(tmp_path / "disk"))
        ((batch,), _) = load_hub_data(str(tmp_path / "disk"), model, tmp_path, 4)
        assert batch["labels"].tolist() == [1, 0, 2]

    def test_without_padding_a_batch_has_one_text(self, tmp_path: Path) -> None:
        model: Any = saved("text", tmp_path)
        save_tokenizer(tmp_path)
        model.config.pad_token_id = None
        (tmp_path / "d.csv").write_text("text,label\na b,2\nd,0\n")
        train, _ = load_hub_data(str(tmp_path / "d.csv"), model, tmp_path, 4)
        assert [batch["input_ids"].tolist() for batch in train] == [[[5, 6]], [[8]]]

    @pytest.mark.parametrize("keep", [1 << 31, 0])
    def test_images(self, keep: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from PIL import Image

        monkeypatch.setattr("howsparse.integrations.images._KEEP", keep)
        model = saved("vit", tmp_path)
        save_processor(tmp_path)
        pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
        grey = np.repeat(pixels[4, :, :, :1], 3, axis=-1)
        images = [Image.fromarray(p) for p in pixels[:4]] + [Image.fromarray(pixels[4, :, :, 0])]
        table = datasets.Dataset.from_dict({"img": images, "label": [0, 1, 2, 0, 1]}).cast_column(
            "img", datasets.Image()
        )
        table.to_parquet(str(tmp_path / "d.parquet"))
        train, _ = load_hub_data(str(tmp_path / "d.parquet"), model, tmp_path, 2)
        for _ in range(2):
            made = torch.cat([batch["pixel_values"] for batch in train])
            expected = torch.from_numpy(np.concatenate([pixels[:4], grey[None]])).permute(0, 3, 1, 2) / 127.5 - 1
            torch.testing.assert_close(made, expected)
        assert [batch["labels"].tolist() for batch in train] == [[0, 1], [2, 0], [1]]
        assert evaluate(model, train)[0] > 0


def save_processor(folder: Path, size: int = 8) -> None:
    about = {"image_processor_type": "ViTImageProcessor", "size": {"height": size, "width": size}, "resample": 2}
    about |= {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    about |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))


def test_large_logits_make_small_batches(tmp_path: Path) -> None:
    model: Any = saved("gpt2", tmp_path)
    assert fitting_size(model, (16,), 1000) == 1000
    model.config.vocab_size = 50_257
    assert fitting_size(model, (512,), 1000) == 2  # 2 x 512 x 50,257 floats are 206 MB


def test_positions_of_roberta_begin_behind_padding() -> None:
    import transformers as hub

    config = hub.RobertaConfig(
        vocab_size=19, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=12, pad_token_id=1,
    )  # fmt: skip
    model = hub.RobertaForMaskedLM(config)
    assert positions(model) == 10
    assert task_of(model) == "masked"
    model(torch.full((1, 10), 5))
    with pytest.raises((IndexError, RuntimeError), match=r"out of (bounds|range)"):
        model(torch.full((1, 11), 5))


def arrays(**tensors: Tensor) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "d.safetensors")
        return str(folder / "d.safetensors")

    return make


def file(name: str, content: str | bytes, tokenizer: bool = True) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        if tokenizer:
            save_tokenizer(folder)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return str(folder / name)

    return make


def large_tokenizer(folder: Path) -> str:
    save_tokenizer(folder, VOCABULARY + 5)
    (folder / "t.txt").write_text("a b s")
    return str(folder / "t.txt")


def damaged_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").write_text("{")
    (folder / "t.txt").write_text("a b")
    return str(folder / "t.txt")


def small_images(folder: Path) -> str:
    from PIL import Image

    save_processor(folder, 6)
    made = datasets.Dataset.from_dict({"image": [Image.new("RGB", (6, 6))], "label": [0]})
    made.cast_column("image", datasets.Image()).to_parquet(str(folder / "d.parquet"))
    return str(folder / "d.parquet")


def empty_folder(folder: Path) -> str:
    (folder / "e").mkdir()
    return str(folder / "e")


def no_images(folder: Path) -> str:
    save_processor(folder)
    return file("d.csv", "image,label\nx.png,0\n", False)(folder)


IDS = torch.arange(10).view(2, 5)
ZEROS, PIXELS = torch.zeros(2, dtype=torch.long), torch.zeros(2, 3, 8, 8)

BAD: dict[str, tuple[str, Callable[[Path], str], str]] = {
    "unknown kind": ("gpt2", lambda f: "words.doc", "--data 'words.doc' is not known; give"),
    "no file": ("gpt2", lambda f: "no.safetensors", "no data file at no.safetensors"),
    "no text": ("gpt2", lambda f: "no.txt", "no data file at no.txt"),
    "no table": ("gpt2", lambda f: "no.csv", "no data file at no.csv"),
    "damaged arrays": ("gpt2", file("d.safetensors", b"123", False), "is not a readable .safetensors file"),
    "damaged npz": ("gpt2", file("d.npz", b"PK\x03\x04", False), "is not an .npz file of plain arrays"),
    "empty npz": ("gpt2", file("d.npz", b"", False), "is not an .npz file of plain arrays"),
    "unknown array": (
        "gpt2",
        arrays(input_ids=IDS, inputs=IDS),
        "'inputs', which GPT2LMHeadModel does not read; remove it",
    ),
    "no tokens": ("gpt2", arrays(labels=IDS), "has no array 'input_ids' (it has: labels); add"),
    "no sequences": ("gpt2", arrays(input_ids=IDS[:0]), "'input_ids' has no examples"),
    "unequal": ("text", arrays(input_ids=IDS, labels=ZEROS[:1]), "has 2 input_ids, 1 labels; store the same"),
    "no labels": ("bert", arrays(input_ids=IDS), "no array 'labels', which BertForMaskedLM needs"),
    "all ignored": ("gpt2", arrays(input_ids=IDS, labels=IDS * 0 - 100), "every label is -100"),
    "only the first counts": (
        "gpt2",
        arrays(input_ids=IDS, labels=torch.full((2, 5), -100).index_fill(1, torch.tensor([0]), 3)),
        "every label is -100",
    ),
    "beyond the vocabulary": ("gpt2", arrays(input_ids=IDS + 10), "'input_ids' has 19, but this model knows 0 to 18"),
    "negative": ("gpt2", arrays(input_ids=IDS - 1), "'input_ids' has -1, but"),
    "fractions": ("gpt2", arrays(input_ids=IDS.double()), "'input_ids' holds fractions"),
    "token types": (
        "bert",
        arrays(input_ids=IDS, labels=IDS, token_type_ids=IDS),
        "'token_type_ids' has 9, but this model knows 0 to 1;",
    ),
    "a vector": ("gpt2", arrays(input_ids=IDS[0]), r"'input_ids' has shape \(5,\); store"),
    "too long": ("gpt2", arrays(input_ids=torch.ones(1, 17).long()), "of 17 tokens, but the model reads 16 at most"),
    "too short": ("gpt2", arrays(input_ids=IDS[:, :1]), "of 1 token, but a causal model needs 2"),
    "mask of another shape": (
        "gpt2",
        arrays(input_ids=IDS, attention_mask=IDS[:, :4]),
        r"'attention_mask' has shape \(2, 4\), 'input_ids' \(2, 5\)",
    ),
    "unknown class": ("text", arrays(input_ids=IDS, labels=ZEROS + 3), "label 3, but the model has the classes 0 to 2"),
    "hidden labels": ("text", arrays(input_ids=IDS, labels=ZEROS - 1), "label -1, .* hidden labels?"),
    "grey pixels": ("vit", arrays(pixel_values=PIXELS[:, :1], labels=ZEROS), r"the model reads \(n, 3, 8, 8\)"),
    "raw pixels": ("vit", arrays(pixel_values=PIXELS.byte(), labels=ZEROS), "holds whole numbers; store the normal"),
    "empty text": ("gpt2", file("t.txt", ""), "t.txt has 0 tokens; give a text of at least 2"),
    "not UTF-8": ("gpt2", file("t.txt", b"\xff\xfe\x00"), "is not text in UTF-8"),
    "no tokenizer": ("gpt2", file("t.txt", "a b", False), "no tokenizer in .*: copy tokenizer.json there, or give"),
    "damaged tokenizer": ("gpt2", damaged_tokenizer, "cannot read the tokenizer in"),
    "larger tokenizer": ("gpt2", large_tokenizer, "'input_ids' has 23, but this model knows 0 to 18"),
    "text for a classifier": ("text", file("t.txt", "a b"), "BertForSequenceClassification is no language model"),
    "no column": ("text", file("d.csv", "words,label\na,1\n"), "no column 'text' (it has: words, label); add"),
    "no label column": ("text", file("d.csv", "text,kind\na,1\n"), "no column 'label' (it has: text, kind); add"),
    "not text": ("text", file("d.csv", "text,label\n1,1\n"), "row 0 of column 'text' is no text"),
    "empty row": ("text", file("d.jsonl", '{"text":"a","label":1}\n{"text":"","label":1}'), "text 1 is empty"),
    "unknown name": ("text", file("d.csv", "text,label\na,great\n"), "label 'great' of row 0 is no class of the model"),
    "label too large": ("text", file("d.csv", "text,label\na,7\n"), "label 7, but the model has the classes 0 to 2"),
    "damaged table": ("text", file("d.parquet", b"PAR1"), "cannot read the data in"),
    "empty folder": ("text", empty_folder, "cannot read the data in"),
    "no processor": ("vit", file("d.csv", "image,label\na,0\n", False), "no image processor in .*: copy preproc"),
    "no images": ("vit", no_images, "the column of images holds something else"),
    "processor of another size": ("vit", small_images, r"'pixel_values' has shape \(1, 3, 6, 6\)"),
    "table for tokens": (
        "tokens",
        file("d.csv", "text,label\na,0\n"),
        "made into batches for BertForTokenClassification",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_are_refused_in_one_line(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kind, make, message = BAD[name]
    model = saved(kind, tmp_path)
    spec = make(tmp_path)
    capfd.readouterr()
    with pytest.raises(InputError, match=message) as caught:
        load_hub_data(spec, model, tmp_path, 8)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_classes_of_the_tests_models() -> None:
    assert CLASSES == 3  # the messages above name the classes 0 to 2
