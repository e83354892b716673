"""Hugging Face models with dict batches, against their own loss and a dense computation in float64."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from howsparse import InputError, cross_entropy, prunable_weights, pruning_limit
from howsparse.risk import GGN, EmpiricalRisk, Hessian, evaluate
from howsparse.risk.outcomes import outcomes
from pretrained_for_tests import KINDS, batches_for, tiny


def whole_loss(model: nn.Module, batches: list[dict[str, Tensor]]) -> Tensor:
    """Mean cross-entropy in float64 over all predictions of all batches, written out from the model's logits."""
    causal = type(model).__name__ in ("GPT2LMHeadModel", "LlamaForCausalLM")
    losses = []
    for batch in batches:
        logits, labels = (
            model(**{key: value for key, value in batch.items() if key != "labels"}).logits,
            batch["labels"],
        )
        if causal:
            logits, labels = logits[:, :-1], labels[:, 1:]
        by_class = logits.reshape(-1, logits.shape[-1])
        every = nn.functional.cross_entropy(by_class, labels.reshape(-1), reduction="none", ignore_index=-100)
        losses.append(every[labels.reshape(-1) != -100])
    return torch.cat(losses).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_value_gradient_and_hessian_are_those_of_the_models_own_loss(kind: str) -> None:
    model, batches = tiny(kind).eval(), batches_for(kind)
    risk = EmpiricalRisk(model, batches)
    with sdpa_kernel(SDPBackend.MATH):
        loss = whole_loss(model, batches)
        parts = torch.autograd.grad(loss, list(prunable_weights(model).values()), create_graph=True)
        gradient = torch.cat([part.flatten() for part in parts])
        direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        curved = torch.autograd.grad(gradient, list(prunable_weights(model).values()), direction)
    assert risk.value() == pytest.approx(float(loss.detach()), rel=1e-7)
    assert torch.linalg.norm(risk.gradient() - gradient.detach()) < 1e-5 * torch.linalg.norm(gradient.detach())
    own = EmpiricalRisk(model, batches[:1], lambda model, batch: model(**batch).loss)
    assert EmpiricalRisk(model, batches[:1]).value() == pytest.approx(own.value(), rel=1e-6)
    product = Hessian(risk) @ direction
    expected = torch.cat([part.flatten() for part in curved])
    assert torch.linalg.norm(product - expected) < 1e-5 * torch.linalg.norm(expected)


@pytest.mark.parametrize("kind", ["llama", "bert", "tokens"])
def test_ggn_is_the_dense_one(kind: str) -> None:
    model, batches = tiny(kind).eval(), batches_for(kind, (2,))
    names = [name for name in prunable_weights(model) if "value" in name or "v_proj" in name or "classifier" in name]
    risk = EmpiricalRisk(model, batches, names=names)
    weights = [prunable_weights(model)[name] for name in names]
    loss = cross_entropy.for_model(model)
    with sdpa_kernel(SDPBackend.MATH):
        logits = loss.output(model, batches[0])
        rows = [torch.autograd.grad(z, weights, retain_graph=True) for z in logits.flatten()]
    jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows]).view(*logits.shape, -1)
    p = logits.detach().softmax(1)
    curved = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    dense = torch.einsum("mcw,mcd,mdv->wv", jacobian, curved, jacobian) / len(logits)
    difference = GGN(risk) @ torch.eye(risk.num_weights, dtype=torch.float64) - dense
    assert torch.linalg.norm(difference) < 1e-5 * torch.linalg.norm(dense)


@pytest.mark.parametrize("kind", ["gpt2", "bert", "vit"])
def test_outcomes_of_examples_are_those_of_batches_of_one(kind: str) -> None:
    model, batches = tiny(kind), batches_for(kind)
    found = outcomes(model, batches)
    ones = [
        {key: value[i : i + 1] for key, value in batch.items()}
        for batch in batches
        for i in range(len(batch["labels"]))
    ]
    assert len(found.losses) == len(ones)
    for one, loss, count in zip(ones, found.losses, found.counts, strict=True):
        if count:
            assert loss == pytest.approx(EmpiricalRisk(model, [one]).value(), rel=1e-9)
    loss, accuracy = evaluate(model, batches)
    assert found.loss == pytest.approx(loss, rel=1e-9)
    assert found.score == pytest.approx(accuracy, rel=1e-9)
    assert loss == pytest.approx(EmpiricalRisk(model, batches).value(), rel=1e-9)


def test_a_loss_of_ones_own_is_evaluated_example_by_example() -> None:
    model, batches = tiny("text"), batches_for("text")

    def own(model: nn.Module, batch: Any) -> Tensor:
        loss: Tensor = model(**batch).loss
        return loss

    alone, built_in = outcomes(model, batches, own), outcomes(model, batches)
    assert np.allclose(alone.losses, built_in.losses, rtol=1e-9)
    assert alone.scores is None


def test_metrics() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    batches = [(logits, torch.tensor([0, 1, 0, -100]))]
    assert evaluate(nn.PReLU(), batches)[1] == pytest.approx(1 / 3)
    assert evaluate(nn.PReLU(), batches, metric="top2")[1] == pytest.approx(2 / 3)
    first = outcomes(nn.PReLU(), batches, metric=lambda output, batch: output[:, 0])
    assert first.scores is not None
    assert first.scores.tolist() == [3.0, 3.0, 1.0, 1.0]
    with pytest.raises(InputError, match="metric 'f1' is not known"):
        evaluate(nn.PReLU(), batches, metric="f1")


def test_bfloat16_is_studied_in_float32() -> None:
    half, batches = tiny("llama", torch.bfloat16), batches_for("llama")
    full = tiny("llama", torch.bfloat16).float()
    risk, reference = EmpiricalRisk(half, batches), EmpiricalRisk(full, batches)
    before = {name: p.clone() for name, p in half.named_parameters()}
    assert risk.leaves[0].dtype == torch.float32
    assert torch.equal(risk.gradient(), reference.gradient())
    assert risk.value() == reference.value()
    limit = pruning_limit(half, batches, tolerance=0.1, max_products=32)
    assert limit.names == tuple(risk.names)
    assert all(torch.equal(p, before[name]) and p.dtype == torch.bfloat16 for name, p in half.named_parameters())


def test_the_loss_of_a_bfloat16_model_has_more_digits_than_its_logits() -> None:
    model, batches = tiny("llama", torch.bfloat16), batches_for("llama")
    logits = model(batches[0]["input_ids"], batches[0]["attention_mask"]).logits[:, :-1]
    labels = batches[0]["labels"][:, 1:]
    exact = nn.functional.cross_entropy(logits.double().reshape(-1, logits.shape[-1]), labels.reshape(-1))
    assert evaluate(model, batches[:1])[0] == pytest.approx(float(exact.detach()), rel=1e-6)
    assert outcomes(model, batches[:1]).loss == pytest.approx(float(exact.detach()), rel=1e-6)


def fails(match: str, model: nn.Module, batches: object) -> None:
    with pytest.raises(InputError, match=match) as caught:
        EmpiricalRisk(model, batches).gradient()  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_wrong_batches_have_their_line() -> None:
    model, (batch, _) = tiny("gpt2"), batches_for("gpt2")
    ignored = batch | {"labels": torch.full_like(batch["labels"], -100)}
    fails(r"every label of the data is -100", model, [ignored])
    fails(
        "no 'labels' but input_ids, attention_mask; add them",
        model,
        [{k: v for k, v in batch.items() if k != "labels"}],
    )
    fails("do not fit labels", model, [batch | {"labels": batch["labels"][:, :3]}])
    regression = tiny("text")
    regression.config.problem_type = "regression"  # type: ignore[union-attr]
    fails("problem_type='regression'", regression, batches_for("text"))
    with pytest.raises(InputError, match="all are -100"):
        outcomes(model, [ignored])


def test_adapters_are_refused_and_merged_ones_are_not() -> None:
    import peft

    model = tiny("llama")
    warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for a name that will be removed
    adapted: Any = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    fails("merge_and_unload", adapted, batches_for("llama"))
    names = [name for name in prunable_weights(adapted) if "lora_" in name]
    assert EmpiricalRisk(adapted.double(), batches_for("llama"), names=names).num_weights > 0
    merged = adapted.merge_and_unload().requires_grad_(True)
    assert EmpiricalRisk(merged, batches_for("llama")).value() > 0
