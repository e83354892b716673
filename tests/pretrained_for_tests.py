"""Tiny Hugging Face models with random weights, one of each kind, and batches for them. Nothing is downloaded."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY, POSITIONS, CLASSES = 19, 7, 3


def tiny(kind: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A tiny model: gpt2, llama (causal, tied), bert, albert (masked), text, tokens (classifiers), vit (images)."""
    import transformers as hub

    torch.manual_seed(0)
    text = {"vocab_size": VOCABULARY, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    bert = text | {"intermediate_size": 12, "max_position_embeddings": 16}
    makers: dict[str, Any] = {
        "gpt2": lambda: hub.GPT2LMHeadModel(
            hub.GPT2Config(vocab_size=VOCABULARY, n_positions=16, n_embd=8, n_layer=2, n_head=2)
        ),
        "llama": lambda: hub.LlamaForCausalLM(
            hub.LlamaConfig(**text, intermediate_size=12, num_key_value_heads=1, tie_word_embeddings=True)
        ),
        "bert": lambda: hub.BertForMaskedLM(hub.BertConfig(**bert)),
        "albert": lambda: hub.AlbertForMaskedLM(hub.AlbertConfig(**bert, embedding_size=6)),
        "text": lambda: hub.BertForSequenceClassification(hub.BertConfig(**bert, num_labels=CLASSES)),
        "tokens": lambda: hub.BertForTokenClassification(hub.BertConfig(**bert, num_labels=CLASSES)),
        "vit": lambda: hub.ViTForImageClassification(
            hub.ViTConfig(
                **{
                    name: value for name, value in bert.items() if name not in ("vocab_size", "max_position_embeddings")
                },
                image_size=8,
                patch_size=4,
                num_labels=CLASSES,
            )
        ),
    }
    model: nn.Module = makers[kind]().to(dtype)
    with torch.no_grad():  # the initialisation is so small that every logit is the same
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def batches_for(kind: str, sizes: tuple[int, ...] = (3, 2)) -> list[dict[str, Tensor]]:
    """Batches with unequal numbers of labels that count."""
    generator = torch.Generator().manual_seed(1)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=generator)

    def batch(size: int) -> dict[str, Tensor]:
        if kind == "vit":
            return {
                "pixel_values": torch.randn(size, 3, 8, 8, generator=generator, dtype=torch.float64),
                "labels": draw(CLASSES, size),
            }
        ids = draw(VOCABULARY, size, POSITIONS)
        mask = torch.ones_like(ids)
        mask[0, -2:] = 0
        given = {"input_ids": ids, "attention_mask": mask}
        if kind == "text":
            return given | {"labels": draw(CLASSES, size)}
        if kind == "tokens":
            return given | {"labels": draw(CLASSES, size, POSITIONS).masked_fill(mask == 0, -100)}
        labels = ids.masked_fill(mask == 0, -100)
        if kind in ("bert", "albert"):
            labels = labels.masked_fill(draw(2, size, POSITIONS) == 0, -100)
        return given | {"labels": labels}

    return [batch(size) for size in sizes]


KINDS = ("gpt2", "llama", "bert", "albert", "text", "tokens", "vit")


def saved(kind: str, folder: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A tiny model that is also in ``folder``."""
    from howsparse.integrations.quiet import quiet

    with quiet():
        model: Any = tiny(kind, dtype)
        model.save_pretrained(folder)
    return model  # type: ignore[no-any-return]


def save_tokenizer(folder: Path, words: int = VOCABULARY) -> Any:
    """Save a tokenizer whose words are letters: a is 5, b is 6, ...; before them padding, unknown, begin, end, mask."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(ord("a"), ord("a") + words - 5))]
    made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    roles = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), names, strict=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **roles)
    tokenizer.save_pretrained(folder)
    return tokenizer
