"""Certificates of small networks whose outcomes are known, and every mistake a user can make."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from howsparse import InputError, Mask, magnitude_mask
from howsparse.limit.certificate import Certificate, Step
from howsparse.limit.certify import CANDIDATES, candidates_around, certify, examples_needed
from howsparse.limit.overlap import overlapping
from howsparse.limit.paired import betting_p_value, paired_p_value
from howsparse.pruning.orders import rank

Batches = list[tuple[Tensor, Tensor]]


def diagonal_case(counts: tuple[int, ...] = (600, 300, 60, 40)) -> tuple[nn.Module, Batches]:
    """A classifier that is right only because of one weight for each class; class k has the kth largest weight.

    With the weight gone, all logits of the class's inputs are 0 and the first class is chosen. So magnitude pruning to
    3, 2 and 1 weights loses all examples of the last class, of the last two, and of the last three.
    """
    size = len(counts)
    model = nn.Linear(size, size, bias=False)
    model.weight.data = torch.diag(torch.arange(size, 0, -1.0))
    targets = torch.arange(size).repeat_interleave(torch.tensor(counts))
    return model, list(zip(torch.eye(size)[targets].split(64), targets.split(64), strict=True))


def kept(count: int, size: int = 4) -> float:
    """The sparsity at which ``count`` weights of the diagonal case stay."""
    return 1 - count / size**2


def accuracy_of_lines(output: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The share of an example's positions that are right, ``(examples,)``: neither 0 nor 1."""
    return (output.argmax(1) == batch[1]).double().mean(1)


def lines_case() -> tuple[nn.Module, Batches]:
    """Examples of four positions each, of which one is of the class that goes first."""
    model = nn.Conv1d(4, 4, 1, bias=False)
    model.weight.data = torch.diag(torch.arange(4, 0, -1.0)).unsqueeze(2)
    targets = torch.tensor([[0, 0, 1, 2]] * 950 + [[0, 0, 1, 3]] * 50)
    return model, [(torch.eye(4)[targets].movedim(2, 1), targets)]


def test_the_sequence_stops_at_the_first_test_that_does_not_pass() -> None:
    model, batches = diagonal_case()
    seen: list[Step] = []
    found = certify(
        model, batches, max_drop=0.06, candidates=[kept(4), kept(3), kept(2), kept(1)], on_point=seen.append
    )
    expected = [  # outcomes by hand: 1,000 examples, all right before pruning
        Step(kept(4), 0, 0, 1.0, paired_p_value(0, 0, 1000, 0.06)),
        Step(kept(3), 40, 0, 0.96, paired_p_value(40, 0, 1000, 0.06)),
        Step(kept(2), 100, 0, 0.9, paired_p_value(100, 0, 1000, 0.06)),
    ]
    assert list(found.steps) == seen == expected
    assert (found.sparsity, found.lost, found.won, found.dense_score, found.pruned_score) == (kept(3), 40, 0, 1.0, 0.96)
    assert found.holds
    assert all(torch.equal(found.mask[name], m) for name, m in magnitude_mask(model, kept(3)).items())
    assert found.test == "exact paired"
    assert found.sentence == (
        "With 95 % confidence, the accuracy on the population drops by at most 6 points when 81.25 % of the weights are"
        " removed (magnitude order; 1,000 held-out examples, exact paired test)."
    )


def test_an_order_gets_the_data_that_chose_it() -> None:
    """The inputs of the class with the largest weight are small, so Wanda removes this weight before the others."""
    model, batches = diagonal_case((40, 300, 60, 600))
    inputs = torch.eye(4) * torch.tensor([0.02, 2.0, 2.0, 2.0])
    found = certify(
        model, batches, max_drop=0.06, order="wanda", candidates=[kept(3)], chosen_on=[(inputs, torch.arange(4))]
    )
    assert (found.order, found.overlap_checked) == ("wanda", True)
    assert not found.mask["weight"][0, 0]
    assert found.steps == (Step(kept(3), 0, 0, 1.0, paired_p_value(0, 0, 1000, 0.06)),)
    ranked = rank(model, "wanda", [(inputs, torch.arange(4))])
    again = certify(model, batches, max_drop=0.06, order=ranked, candidates=[kept(3)])
    assert again.digest == found.digest
    assert not again.overlap_checked


def test_examples_that_pruning_mends_count_in_favour() -> None:
    """A weight that is small and wrong: without it, 50 examples become right and 40 others wrong."""
    model, batches = diagonal_case((600, 310, 50, 40))
    model.get_parameter("weight").data[0, 2], model.get_parameter("weight").data[2, 2] = 0.5, 0.4
    mask = Mask(weight=(model.get_parameter("weight") > 0))
    mask["weight"][0, 2], mask["weight"][3, 3] = False, False
    found = certify(model, batches, max_drop=0.02, masks=[mask])
    assert (found.lost, found.won) == (40, 50)
    assert (found.dense_score, found.pruned_score) == (0.95, 0.96)
    assert found.steps[0].p_value == paired_p_value(40, 50, 1000, 0.02)
    assert found.order == "given"


def test_nothing_certified_is_said() -> None:
    model, batches = diagonal_case()
    found = certify(model, batches, max_drop=0.01, candidates=[kept(3)])
    assert not found.holds
    assert (found.sparsity, found.lost, found.won, found.pruned_score) == (0.0, 0, 0, 1.0)
    assert found.mask.sparsity == 0
    assert found.matches(model)
    assert found.sentence.startswith("Nothing is certified: with 81.25 % of the weights removed, the accuracy on the")


def test_scores_between_are_tested_by_betting() -> None:
    model, batches = lines_case()
    found = certify(model, batches, max_drop=0.05, candidates=[kept(3)], metric=accuracy_of_lines)
    drops = np.array([0.0] * 950 + [0.25] * 50)
    assert found.test == "betting"
    assert found.metric == "accuracy_of_lines"
    assert found.steps == (Step(kept(3), 50, 0, 0.9875, betting_p_value(drops, 0.05)),)
    assert found.holds


def test_a_loss_counts_up_to_its_bound() -> None:
    model, batches = diagonal_case()
    found = certify(model, batches, tolerance=0.2, loss_bound=1.0, candidates=[kept(3)])
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with torch.no_grad():
        before = nn.functional.cross_entropy(model(inputs), targets, reduction="none").clamp(max=1.0).double()
    after = torch.where(targets == 3, torch.tensor(1.0), before)  # log 4 is above the bound
    assert found.dense_score == pytest.approx(float(before.mean()))
    assert found.pruned_score == pytest.approx(float(after.mean()))
    assert found.steps[0].p_value == pytest.approx(betting_p_value((after - before).numpy(), 0.2), rel=1e-5)
    assert (found.metric, found.lost, found.won) == ("loss", 40, 0)
    assert "the mean loss on the population (at most 1 per example) rises by at most 0.2" in found.sentence


def test_the_model_comes_back_as_it_was_also_after_an_error() -> None:
    model, batches = diagonal_case()
    network = nn.Sequential(nn.BatchNorm1d(4, affine=False), model, nn.Dropout()).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*map(torch.cat, zip(*batches, strict=True))), 64
    )
    certify(network, loader, max_drop=0.05)

    def stop(step: Step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certify(network, loader, max_drop=0.05, on_point=stop)
    assert network.training
    assert network[2].training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_certificate_is_read_back_and_knows_its_network(tmp_path: Path) -> None:
    model, batches = diagonal_case()
    found = certify(
        model, batches, max_drop=0.06, candidates=[kept(4), kept(3), kept(2)], chosen_on=[torch.zeros(2, 4)]
    )
    found.save(tmp_path / "certificate.safetensors")
    again = Certificate.load(tmp_path / "certificate.safetensors")
    names = (
        "sparsity",
        "max_drop",
        "confidence",
        "metric",
        "num_examples",
        "steps",
        "digest",
        "test",
        "overlap_checked",
    )
    assert all(getattr(again, name) == getattr(found, name) for name in names)
    assert again.sentence == found.sentence
    assert again.overlap_checked
    assert all(torch.equal(again.mask[name], found.mask[name]) for name in found.mask)
    assert again.matches(model)
    again.mask.apply_(model)
    assert again.matches(model)
    model.get_parameter("weight").data[0, 0] += 1
    assert not again.matches(model)


def test_overlap_is_by_content_whatever_the_batches_and_the_padding() -> None:
    x, y = torch.randn(10, 3), torch.arange(10)
    assert overlapping([(x, y)], [(x[8:], y[8:]), (x[:1], y[:1])]) == 3
    assert overlapping([(x, y)], [(x, y + 1)]) == 0
    short = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    padded = {
        "input_ids": torch.tensor([[5, 6, 7, 0, 0], [5, 6, 0, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]),
    }
    assert overlapping([padded], [short]) == 1


def test_candidates_rise_to_a_little_above_the_measured_sparsity() -> None:
    for measured in (0.05, 0.5, 0.83, 0.97, 0.999):
        found = candidates_around(measured)
        assert list(found) == sorted(set(found))
        assert found[0] == pytest.approx(0.6 * measured)
        assert measured < found[-1] < 1
    assert list(CANDIDATES) == sorted(set(CANDIDATES))


def test_examples_needed_is_what_a_refusal_says() -> None:
    model, batches = diagonal_case((100, 10, 1, 1))
    assert examples_needed(0.02) == 149
    with pytest.raises(InputError, match=r"112 held-out examples are too few to certify a drop of .*at least 149$"):
        certify(model, batches, max_drop=0.02)
    needed = examples_needed(0.05)
    model, batches = diagonal_case((needed, 0, 0, 0))
    assert certify(model, batches, max_drop=0.05, candidates=[kept(4)]).holds


class Shuffled:
    """Another order of the examples in every pass."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        for inputs, targets in self.batches:
            yield inputs.roll(self.passes, 0) + self.passes, targets.roll(self.passes, 0)


class Shrinking(Shuffled):
    """One batch fewer in the fourth pass."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        yield from self.batches[: len(self.batches) - (self.passes > 3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_drop": 200}, r"max_drop 200 is outside \(0, 1\); give a fraction: 0\.01 for one point"),
        ({"max_drop": 0.0}, "max_drop 0 is outside"),
        ({"max_drop": float("nan")}, "max_drop nan is outside"),
        ({}, "give max_drop, or tolerance with loss_bound"),
        ({"max_drop": 0.1, "tolerance": 0.1}, "give max_drop, or tolerance with loss_bound"),
        ({"tolerance": 0.1}, "tolerance needs loss_bound"),
        ({"tolerance": 2, "loss_bound": 1}, "give 0 < tolerance < loss_bound"),
        ({"max_drop": 0.1, "confidence": 95}, r"confidence 95 is outside \(0\.5, 1\)"),
        ({"max_drop": 0.1, "candidates": []}, "give at least one"),
        ({"max_drop": 0.1, "candidates": [0.5, 1.0]}, r"in \(0, 1\)"),
        ({"max_drop": 0.1, "candidates": [0.5, 0.4]}, "sort them"),
        ({"max_drop": 0.1, "masks": []}, "the list of masks is empty"),
        ({"max_drop": 0.1, "masks": [Mask()], "candidates": [0.5]}, "give masks alone"),
        ({"max_drop": 0.1, "order": "size"}, "'size' is not known"),
        ({"max_drop": 0.1, "order": "wanda"}, r"'wanda' needs data; pass batches \(certify: chosen_on\)"),
        ({"max_drop": 0.1, "names": ["bias"]}, "'bias' is not a prunable weight"),
        ({"max_drop": 0.1, "loss": lambda model, batch: model(batch[0]).mean()}, "pass a metric, or tolerance"),
        ({"max_drop": 0.1, "metric": lambda output, batch: output.sum(1)}, r"a certificate needs values in \[0, 1\]"),
    ],
)
def test_mistakes_are_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    model, batches = diagonal_case()
    with pytest.raises(InputError, match=message) as caught:
        certify(model, batches, **arguments)
    assert "\n" not in str(caught.value)


def test_held_out_data_that_prove_nothing_are_refused() -> None:
    model, batches = diagonal_case()
    ignored = [(inputs, torch.full_like(targets, -100)) for inputs, targets in batches]
    wrong: list[tuple[Any, str]] = [
        (Shuffled(batches), "held_out differs from pass to pass"),
        (Shrinking(batches), "held_out differs from pass to pass"),
        (iter(batches), "can be read only once"),
        ([], "held_out has no batches"),
        (ignored, "no label of the data counts"),
    ]
    for held_out, message in wrong:
        with pytest.raises(InputError, match=message):
            certify(model, held_out, max_drop=0.05)
    others = [(torch.full((1, 4), 9.0), torch.tensor([0])), (batches[0][0][:3], batches[0][1][:3])]
    with pytest.raises(
        InputError, match=r"^600 held-out examples are also among the data that trained the network or chose"
    ):
        certify(model, batches, max_drop=0.05, chosen_on=others)


def share_of_ties(output: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    """One if the label's logit is the largest, and one half, third and so on if as many classes have this logit."""
    ties = output == output.max(1, keepdim=True).values
    return ties[torch.arange(len(output)), batch[1]].double() / ties.sum(1)


def test_a_metric_that_is_whole_only_before_pruning_is_refused() -> None:
    model, batches = diagonal_case()
    with pytest.raises(InputError, match="0 or 1 before pruning, but not after"):
        certify(model, batches, max_drop=0.05, candidates=[kept(3)], metric=share_of_ties)
