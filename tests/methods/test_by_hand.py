"""Methods against the same thing written by hand, to the bit; and their limits against the networks they are of."""

import copy
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from howsparse import pruning_limit
from howsparse.limit.options import LimitOptions
from howsparse.limit.result import LimitSummary
from howsparse.methods import Run, Sparsity, Stage, Ticket, load_method
from howsparse.pruning.masks import Mask
from howsparse.pruning.prune import prune
from howsparse.pruning.repair import repair_layers
from howsparse.risk.weights import torch_masks
from methods_for_tests import WEIGHTS, Kept, all_kept, always, largest_kept, same, small, state, train_by_hand, zero

pytestmark = pytest.mark.usefixtures("one_thread")


def check(ticket: Ticket, model: nn.Module, kept: Kept) -> None:
    assert same(dict(ticket.mask), kept)
    assert same(ticket.model, model)


@pytest.mark.parametrize("name", ["dense", "random", "random:layers=erk"])
def test_one_training_under_one_mask(name: str) -> None:
    task = small()
    ticket = load_method(name)(task, 0.9)
    model, kept = task.initial(0), dict(ticket.mask)
    train_by_hand(task, model, always(kept), range(5))
    check(ticket, model, kept)


@pytest.mark.parametrize("fine_tune", [0, 2])
def test_one_shot(fine_tune: int) -> None:
    task = small(l1=3e-3)
    model = task.initial(0)
    train_by_hand(task, model, always(all_kept(model)), range(5), l1=3e-3)
    kept = largest_kept(model, 646)
    zero(model, kept)
    train_by_hand(task, model, always(kept), range(fine_tune))
    check(load_method(f"one_shot:fine_tune={fine_tune}")(task, 0.9), model, kept)


def test_surgeon() -> None:
    task = small()
    model = task.initial(0)
    train_by_hand(task, model, always(all_kept(model)), range(5))
    kept = largest_kept(model, 646)
    repair_layers(model, Mask(kept), list(task.study_batches(200)))
    ticket = load_method("surgeon:repair=layers,examples=200")(task, 0.9)
    check(ticket, model, kept)
    assert [stage.name for stage in ticket.history] == ["dense"]


@pytest.mark.parametrize(
    ("options", "sparsity", "rewind", "left"),
    [
        ("fraction=0.5", 0.8, 0, [3232, 1616, 1293]),
        ("fraction=0.5,rewind=2", 0.8, 2, [3232, 1616, 1293]),
        ("", 0.5, 0, [5171, 4137, 3310, 3232]),  # 0.8, 0.64, 0.512 and at last 0.5 of 6464
        ("fraction=0.5,rewind=1", 0.0, 1, []),
    ],
)
def test_lottery_ticket(options: str, sparsity: float, rewind: int, left: list[int]) -> None:
    # The rate falls in epoch 3, so that a schedule which is not rewound, or too far, shows.
    task = small(schedule={"kind": "steps", "milestones": (3,)})

    def rate(epoch: int) -> float:
        return 0.1 if epoch >= 3 else 1.0

    model = task.initial(0)
    kept = all_kept(model)
    train_by_hand(task, model, always(kept), range(rewind), rate=rate)
    start = state(model)
    for count in left:
        train_by_hand(task, model, always(kept), range(rewind, 5), rate=rate)
        kept = largest_kept(model, count)
        model.load_state_dict(start)
        zero(model, kept)
    train_by_hand(task, model, always(kept), range(rewind, 5), rate=rate)

    ended: list[int] = []
    run = Run(on_stage=lambda stage, model, mask: ended.append(mask.num_kept))
    check(load_method(f"lottery_ticket:{options}")(task, sparsity, run=run), model, kept)
    assert ended == [WEIGHTS] * bool(rewind) + [WEIGHTS, *left]


@pytest.mark.parametrize(
    ("options", "epochs", "left"),
    [
        # 0.9 (1 - (1-x)^3) at x = 0, 1/3, 2/3, 1 removes 0, 19/30, 26/30, 27/30
        ("", 4, [6464, 2370, 862, 646]),
        ("", 5, [6464, 2941, 1238, 693, 646]),  # x = 0, 4/15, 8/15, 12/15, 1
        ("begin=0.2,end=0.8", 5, [6464, 6464, 2370, 862, 646]),
        ("begin=0,end=1", 3, [6464, 2370, 862]),  # and the last step when the training is over
    ],
)
def test_gradual(options: str, epochs: int, left: list[int]) -> None:
    task = small(epochs=epochs)
    model = task.initial(0)
    train_by_hand(task, model, lambda epoch: largest_kept(model, left[epoch]), range(epochs))
    kept = largest_kept(model, 646)
    zero(model, kept)
    check(load_method(f"gradual:{options}")(task, 0.9), model, kept)


def test_limit_guided_removes_what_the_limits_say(monkeypatch: pytest.MonkeyPatch) -> None:
    # 0.5 of all, then the least of 0.1 in place of 0.02, then 0.3, and 0.6 would be too much.
    script, asked = [0.5, 0.02, 0.3, 0.6], list[tuple[int, int, int, int]]()

    def summary(limit: float) -> LimitSummary:
        return LimitSummary(limit, limit - 0.01, limit + 0.01, predicted=0.3, products=9)

    def scripted(model: nn.Module, batches: Iterable[Any], *, options: LimitOptions, **_: object) -> SimpleNamespace:
        limit = script[len(asked)]
        examples = sum(len(targets) for _, targets in batches)
        asked.append((Mask(torch_masks(model)).num_kept, examples, options.max_products, options.seed))
        assert options.population == 300
        return SimpleNamespace(sparsity=limit, resolved=True, summary=lambda: summary(limit))

    monkeypatch.setattr("howsparse.methods.limits.pruning_limit", scripted)
    task = small()
    ticket = load_method("limit_guided")(task, 0.8, 0, Run(examples=256, limit=LimitOptions(max_products=77)))
    left = [3232, 2909, 2036, 1293]  # 0.5, 0.45, 0.315 and 0.2 of 6464
    assert asked == [(count, 256, 77, 0) for count in [WEIGHTS, *left[:-1]]]
    assert [stage.limits for stage in ticket.history] == [
        *(summary(limit) for limit in script),
        None,
    ]

    model = task.initial(0)
    kept = all_kept(model)
    for count in left:
        train_by_hand(task, model, always(kept), range(5))
        kept = largest_kept(model, count)
        model.load_state_dict(task.initial(0).state_dict())
    train_by_hand(task, model, always(kept), range(5))
    check(ticket, model, kept)


def test_limit_guided_asks_for_the_limit_of_the_weights_that_are_left() -> None:
    task, found = small(), []

    def look(stage: Stage, model: nn.Module, mask: Mask) -> None:
        left = prune(copy.deepcopy(model), mask)
        found.append(pruning_limit(left, task.study_batches(), max_products=32, seed=0))

    ticket = load_method("limit_guided")(task, 0.9, 0, Run(limit=LimitOptions(max_products=32), on_stage=look))
    assert len(ticket.history) > 2
    left = WEIGHTS
    for stage, limit in zip(ticket.history[:-1], found, strict=False):
        assert stage.limits == limit.summary()
        assert limit.num_weights == round((1 - stage.sparsity) * WEIGHTS)
        assert limit.num_weights == pytest.approx(left, abs=1)  # shares are multiplied before they are rounded
        share = limit.sparsity if limit.resolved else limit.bracket[0]
        left = max(round(limit.num_weights * (1 - max(share, 0.1))), 646)
    assert ticket.mask.num_kept == left == 646


@pytest.mark.parametrize("word", ["limit", "predicted"])
def test_words_mean_the_dense_l1_network(word: Sparsity, tmp_path: Path) -> None:
    task = small(l1=3e-3)
    model = task.initial(0)
    train_by_hand(task, model, always(all_kept(model)), range(5), l1=3e-3)
    options = LimitOptions(max_products=48, curvature="ggn")  # which resolve the limit
    limit = pruning_limit(model, task.study_batches(), options=options, seed=0)
    assert limit.resolved
    share = limit.sparsity if word == "limit" else limit.predicted
    count = round((1 - share) * WEIGHTS)
    assert 0 < count < WEIGHTS

    # ... which one_shot has trained itself
    stages: list[str] = []
    run = Run(tmp_path, limit=options, on_epoch=lambda stage, _: stages.append(stage))
    ticket = load_method("one_shot")(task, word, run=run)
    kept = largest_kept(model, count)
    assert same(dict(ticket.mask), kept)
    assert [stage.name for stage in ticket.history] == ["dense with l1"]
    limits = ticket.history[0].limits
    assert limits is not None
    assert (limits.limit, limits.predicted) == (limit.sparsity, limit.predicted)
    assert stages == ["dense with l1"] * 5

    stages.clear()
    for name in ("gradual", "limit_guided", "lottery_ticket:fraction=0.5", "random", "rare_gems"):
        ticket = load_method(name)(task, word, run=run)
        assert ticket.mask.num_kept == count
        assert ticket.history[0].name == "dense with l1, for the limit"
    assert "dense with l1, for the limit" not in stages  # it is in the folder


def test_limits_are_kept_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, run = small(), Run(tmp_path, limit=LimitOptions(max_products=32))
    first = load_method("limit_guided")(task, 0.9, run=run)
    monkeypatch.setattr("howsparse.methods.limits.pruning_limit", None)
    second = load_method("limit_guided")(task, 0.9, run=run)
    assert first.history == second.history
    with pytest.raises(TypeError):  # other limits are asked for
        load_method("limit_guided")(task, 0.9, run=Run(tmp_path, limit=LimitOptions(max_products=40)))
    with pytest.raises(TypeError):
        load_method("limit_guided")(task, 0.9, run=Run(tmp_path, examples=256, limit=LimitOptions(max_products=32)))
