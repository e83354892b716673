"""What every method owes: exact masks, the same bits again, and a run that goes on where it was stopped."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from howsparse.errors import InputError
from howsparse.limit.options import LimitOptions
from howsparse.methods import METHODS, Stage, Ticket, load_method
from howsparse.methods.stages import Run, Stages
from howsparse.problem import Problem
from howsparse.pruning.masks import Mask
from howsparse.risk.evaluate import evaluate
from howsparse.risk.weights import prunable_weights
from howsparse.training import Epoch
from methods_for_tests import WEIGHTS, all_kept, same, small, state

VARIANTS = {
    "dense": ["dense"],
    "gradual": ["gradual", "gradual:begin=0.2,end=1"],
    "limit_guided": ["limit_guided"],
    "lottery_ticket": ["lottery_ticket:fraction=0.5", "lottery_ticket:fraction=0.5,rewind=1"],
    "one_shot": ["one_shot", "one_shot:fine_tune=2"],
    "random": ["random", "random:layers=erk"],
    "rare_gems": ["rare_gems", "rare_gems:l2=0,period=2"],
    "smart_ratio": ["smart_ratio"],
    "surgeon": ["surgeon:examples=300", "surgeon:repair=layers,order=erk"],
}
ALL = list(itertools.chain.from_iterable(VARIANTS.values()))
TARGET, KEPT = 0.87, 840  # 0.13 * 6464 = 840.32

every_method = pytest.mark.parametrize("name", ALL)


pytestmark = pytest.mark.usefixtures("one_thread")


def task_for(name: str) -> Problem:
    return small("digits-convnet" if name == "smart_ratio" else "digits")


def ticket(name: str, sparsity: float = TARGET, seed: int = 0, run: Run = Run()) -> Ticket:
    return load_method(name)(task_for(name), sparsity, seed, replace(run, limit=LimitOptions(max_products=32)))


def test_no_method_is_left_out() -> None:
    assert list(VARIANTS) == list(METHODS)


@every_method
@pytest.mark.parametrize(("sparsity", "kept"), [(TARGET, KEPT), (0.5, 3232), (0.0, WEIGHTS)])
def test_sparsity_is_exact_and_removed_weights_are_zero(name: str, sparsity: float, kept: int) -> None:
    if name == "smart_ratio":
        kept = {TARGET: 1982, 0.5: 7624, 0.0: 15248}[sparsity]  # 0.13 * 15248 = 1982.24
    found = ticket(name, sparsity)
    weights = prunable_weights(found.model)
    assert found.mask.num_kept == (WEIGHTS if name == "dense" else kept)
    assert found.mask.keys() == weights.keys()
    assert all(found.mask[w].shape == weights[w].shape for w in weights)
    alive = {w: weights[w] != 0 for w in weights}
    assert not any((alive[w] & ~found.mask[w]).any() for w in weights)
    if "rare_gems" in name:  # a weight that the search left out starts fine-tuning from zero, and may stay there
        assert sum(int(a.sum()) for a in alive.values()) > 0.9 * kept
    else:
        assert all(torch.equal(alive[w], found.mask[w]) for w in weights)


@every_method
def test_a_ticket_says_what_its_network_does(name: str) -> None:
    task, found = task_for(name), ticket(name)
    loss, _ = evaluate(found.model, task.study_batches())
    _, accuracy = evaluate(found.model, task.test)
    assert (found.loss, found.accuracy) == (loss, accuracy)
    assert found.epochs == sum(stage.epochs for stage in found.history) >= 5
    prunes_last = name == "one_shot" or "surgeon" in name  # after its last training
    if not prunes_last:
        assert found.history[-1].accuracy == accuracy
    assert found.history[-1].sparsity == (0.0 if prunes_last else found.mask.sparsity)
    assert all(w.requires_grad for w in found.model.parameters())


class Steps:
    """Zeros among an optimizer's weight matrices after each of its steps, by stage."""

    def __init__(self) -> None:
        self.current: list[list[Tensor]] = []
        self.stages: list[tuple[str, Mask, list[list[Tensor]]]] = []

    def look(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        held = [p.detach() for group in optimizer.param_groups for p in group["params"]]
        self.current.append([p == 0 for p in held if p.ndim > 1])

    def end(self, stage: Stage, model: nn.Module, mask: Mask) -> None:
        self.stages.append((stage.name, mask, self.current))
        self.current = []


@every_method
def test_removed_weights_are_zero_after_every_step_of_every_stage(name: str) -> None:
    steps = Steps()
    handle = register_optimizer_step_post_hook(steps.look)
    try:
        found = ticket(name, run=Run(on_stage=steps.end))
    finally:
        handle.remove()
    assert [stage for stage, *_ in steps.stages] == [stage.name for stage in found.history]
    for (stage, mask, zeros), entry in zip(steps.stages, found.history, strict=True):
        assert len(zeros) == 3 * entry.epochs
        if stage == "search":  # of scores; see test_rare_gems
            continue
        if "gradual" in name:  # what is removed never comes back
            assert not any(
                (b & ~a).any() for old, new in itertools.pairwise(zeros) for b, a in zip(old, new, strict=True)
            )
            assert sum(int(z.sum()) for z in zeros[0]) == 0 < sum(int(z.sum()) for z in zeros[-1])
        else:
            assert all(z[~kept].all() for after in zeros for z, kept in zip(after, mask.values(), strict=True))


@every_method
def test_the_same_seed_gives_the_same_bits_and_another_one_others(name: str) -> None:
    torch.manual_seed(1)
    first = ticket(name)
    torch.manual_seed(2)
    again, other = ticket(name), ticket(name, seed=1)
    assert same(first.model, again.model)
    assert same(dict(first.mask), dict(again.mask))
    assert (first.accuracy, first.loss) == (again.accuracy, again.loss)
    assert not same(first.model, other.model)
    if name != "dense":
        assert not same(dict(first.mask), dict(other.mask))


def test_the_random_state_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for name in ALL:
        ticket(name)
    assert torch.equal(torch.get_rng_state(), before)


class Stop(Exception):
    """Takes the place of a crash."""


@every_method
def test_a_run_stopped_again_and_again_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    # Every attempt ends in its second new epoch. Its first is on disk then; the second is not if it is in the midst of
    # a training, as files are written at most every ten seconds.
    whole = ticket(name)
    attempts, seen = 0, []

    def stop(stage: str, epoch: Epoch) -> None:
        seen.append((stage, epoch.epoch))
        if len(seen) % 2 == 0:
            raise Stop

    found = None
    while found is None:
        attempts += 1
        assert attempts < 100
        if len(seen) % 2:
            seen.append(("", 0))
        try:
            found = ticket(name, run=Run(tmp_path, on_epoch=stop))
        except Stop:
            continue
    assert attempts > 3
    assert {stage for stage, _ in seen} - {""} == {stage.name for stage in whole.history}
    assert same(found.model, whole.model)
    assert same(dict(found.mask), dict(whole.mask))
    assert (found.accuracy, found.loss) == (whole.accuracy, whole.loss)
    assert [replace(stage, seconds=0) for stage in found.history] == [replace(s, seconds=0) for s in whole.history]


@every_method
def test_a_second_run_trains_nothing(name: str, tmp_path: Path) -> None:
    epochs: list[str] = []
    run = Run(tmp_path, on_epoch=lambda stage, _: epochs.append(stage))
    first = ticket(name, run=run)
    assert len(epochs) == first.epochs
    epochs.clear()
    second = ticket(name, run=run)
    assert epochs == []
    assert same(first.model, second.model)
    assert same(dict(first.mask), dict(second.mask))
    assert first.history == second.history


@every_method
def test_other_sparsities_and_seeds_in_the_folder_change_nothing(name: str, tmp_path: Path) -> None:
    whole = ticket(name)
    for sparsity, seed in ((0.5, 0), (0.88, 0), (TARGET, 1)):
        ticket(name, sparsity, seed, Run(tmp_path))
    found = ticket(name, run=Run(tmp_path))
    assert same(found.model, whole.model)
    assert same(dict(found.mask), dict(whole.mask))


def test_other_methods_in_the_folder_change_nothing(tmp_path: Path) -> None:
    for name in ALL:
        found, whole = ticket(name, run=Run(tmp_path)), ticket(name)
        assert same(found.model, whole.model), name
        assert same(dict(found.mask), dict(whole.mask)), name


def test_masks_over_weights_that_are_zero_anyway_are_told_apart(tmp_path: Path) -> None:
    # The proximal l1 term leaves fewer than half of the weights: 0.3 and 0.2 remove only zeros, each its own.
    task, method = small(proximal=True, l1=0.02, epochs=10), load_method("one_shot:fine_tune=1")
    whole = method(task, 0.3)
    method(task, 0.2, run=Run(tmp_path))
    found = method(task, 0.3, run=Run(tmp_path))
    assert same(found.model, whole.model)
    assert not any((w[~found.mask[name]] != 0).any() for name, w in prunable_weights(found.model).items())


def test_methods_share_the_trainings_that_are_the_same(tmp_path: Path) -> None:
    stages: list[str] = []
    run = Run(tmp_path, on_epoch=lambda stage, _: stages.append(stage))
    ticket("dense", run=run)
    assert set(stages) == {"dense"}
    stages.clear()
    ticket("lottery_ticket:fraction=0.5", run=run)
    assert set(stages) == {"round 2", "round 3", "final training"}
    stages.clear()
    ticket("limit_guided", run=run)
    assert "round 1" not in stages
    assert "round 2" in stages


@pytest.mark.parametrize("change", ["recipe", "images", "seed"])
def test_what_is_another_training_is_not_taken_for_it(change: str, tmp_path: Path) -> None:
    task, stages = small(), []
    load_method("dense")(task, run=Run(tmp_path))
    run = Run(tmp_path, on_epoch=lambda stage, _: stages.append(stage))
    if change == "recipe":
        load_method("dense")(small(momentum=0.8), run=run)
    elif change == "images":
        load_method("dense")(small(images=299), run=run)
    else:  # the seed orders the batches, whatever the network starts from
        Stages(task, 1, run).train("dense", task.initial(0))
    assert len(stages) == 5


def test_callbacks_tell_what_happens() -> None:
    told: list[str] = []
    run = Run(
        on_epoch=lambda stage, epoch: told.append(f"{stage} {epoch.epoch}"),
        on_stage=lambda stage, model, mask: told.append(f"{stage.name} ends, {mask.num_kept} left"),
    )
    load_method("lottery_ticket:fraction=0.5")(small(epochs=2), 0.7, run=run)
    assert told == [
        *("round 1 0", "round 1 1", f"round 1 ends, {WEIGHTS} left"),
        *("round 2 0", "round 2 1", "round 2 ends, 3232 left"),
        *("final training 0", "final training 1", "final training ends, 1939 left"),
    ]


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
@pytest.mark.parametrize("name", [name for name in ALL if name != "dense"])
def test_sparsity_out_of_range(name: str, sparsity: float) -> None:
    with pytest.raises(InputError, match=r"outside \[0, 1\)"):
        ticket(name, sparsity)


def test_dense_looks_at_no_sparsity() -> None:
    assert same(ticket("dense", 0.0).model, ticket("dense", 0.9).model)
    model = task_for("dense").network()
    assert same(dict(ticket("dense").mask), all_kept(model))
    assert not same(state(model), ticket("dense").model)
