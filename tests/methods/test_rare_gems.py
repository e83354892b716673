"""The search by scores: what is frozen, what the network computes, and where its gradients go."""

import importlib
import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from howsparse.methods import Run, Stage, load_method
from howsparse.methods.rare_gems import Gem, rare_gems
from howsparse.pruning.masks import Mask
from howsparse.risk.weights import prunable_weights
from methods_for_tests import WEIGHTS, always, same, small, state, train_by_hand

SCORES = ([0.9, 0.2, 0.6, 0.4, 0.7, 0.1], [0.8, 0.3, 0.0, 0.55])


pytestmark = pytest.mark.usefixtures("one_thread")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)).double()


def gem() -> Gem:
    """Scores by hand: five of ten round to 1."""
    made = Gem(network(), seed=0)
    with torch.no_grad():
        for score, values in zip(made.scores(), SCORES, strict=True):
            score.copy_(torch.tensor(values).view(score.shape))
    return made


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def used(model: nn.Module, name: str) -> Tensor:
    """A weight as its layer sees it."""
    path, _, leaf = name.rpartition(".")
    weight = getattr(model.get_submodule(path), leaf)
    assert isinstance(weight, Tensor)
    return weight


def test_scores_start_uniform_by_the_seed() -> None:
    model = nn.Linear(100, 100)
    scores = flat(list(Gem(model, seed=3).scores()))
    assert torch.equal(scores, flat(list(Gem(nn.Linear(100, 100), seed=3).scores())))
    assert not torch.equal(scores, flat(list(Gem(nn.Linear(100, 100), seed=4).scores())))
    assert 0 <= scores.min() < 0.01 < 0.99 < scores.max() <= 1
    assert torch.histc(scores, 4, 0, 1).tolist() == pytest.approx([2500] * 4, abs=250)


def test_the_network_uses_weights_whose_score_rounds_to_one() -> None:
    plain, made = network(), gem()
    inputs = torch.randn(4, 3, dtype=torch.float64)
    with torch.no_grad():
        for layer, chosen in (("0", [1, 0, 1, 0, 1, 0]), ("2", [1, 0, 0, 1])):
            weight = plain.get_parameter(f"{layer}.weight")
            weight.mul_(torch.tensor(chosen).view(weight.shape))
    assert torch.equal(made.model(inputs), plain(inputs))
    assert torch.equal(made.network()(inputs), plain(inputs))
    assert type(made.network()[0]) is nn.Linear  # type: ignore[index]
    assert all(p.requires_grad for p in made.network().parameters())


@pytest.mark.parametrize("density", [1.0, 0.6])
def test_gradients_pass_straight_through_the_rounding(density: float) -> None:
    plain, made = network(), gem()
    made.freeze(density)
    inputs, slope = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    (made.model(inputs) * slope).sum().backward()

    initial = [w.detach().clone() for w in prunable_weights(plain).values()]
    plain.load_state_dict(made.network().state_dict())
    (plain(inputs) * slope).sum().backward()
    for score, start, w, active in zip(
        made.scores(), initial, prunable_weights(plain).values(), made.mask().values(), strict=True
    ):
        assert score.grad is not None
        assert w.grad is not None
        assert torch.allclose(score.grad.double(), torch.where(active, w.grad * start, 0.0), rtol=1e-6)
        assert score.grad[active].ne(0).all()  # where the score rounds to 0, too
    assert [p.requires_grad for p in made.model.parameters()].count(True) == 2  # the scores, and nothing else


def test_freeze_keeps_the_highest_scores_of_the_active() -> None:
    made = gem()
    made.freeze(0.7)
    first = torch.tensor([1, 0, 1, 1, 1, 0, 1, 1, 0, 1]).bool()  # 0.1, 0.2 and 0.0 go
    assert torch.equal(flat(list(made.mask().values())), first)
    with torch.no_grad():
        made.scores()[0].view(-1)[1] = 1.0  # frozen out: however high
        made.scores()[1].view(-1)[0] = 0.05  # once the second highest
    made.freeze(0.3)
    assert flat(list(made.mask().values())).nonzero().flatten().tolist() == [0, 2, 4]
    assert (flat([used(made.model, f"{i}.weight") for i in (0, 2)]) != 0).nonzero().flatten().tolist() == [0, 2, 4]


def test_chance_decides_between_equal_scores() -> None:
    found = []
    for seed in range(3):
        made = Gem(nn.Linear(20, 10), seed)
        with torch.no_grad():
            made.scores()[0].zero_()
        made.freeze(0.5)
        found.append(made.mask()["weight"].flatten())
    assert [int(kept.sum()) for kept in found] == [100] * 3
    assert all(30 < int(kept[:100].sum()) < 70 for kept in found)
    assert not torch.equal(found[0], found[1])


def test_clip() -> None:
    made = gem()
    with torch.no_grad():
        made.scores()[0].add_(0.5).sub_(torch.tensor([0.0, 1.0, 0.0]))
    made.clip()
    assert made.scores()[0].flatten().tolist() == pytest.approx([1.0, 0.0, 1.0, 0.9, 0.2, 0.6])


@pytest.mark.parametrize("options", ["", "l2=0,period=2", "l2=0.01,learning_rate=0.5,period=1"])
def test_the_whole_search(options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gems: list[Gem] = []

    def watched(model: nn.Module, seed: int) -> Gem:
        gems.append(Gem(model, seed))
        return gems[-1]

    module = importlib.import_module("howsparse.methods.rare_gems")
    monkeypatch.setattr(module, "Gem", watched)
    task, masks, moved = small("digits-convnet"), [], []
    initial, inputs = prunable_weights(task.initial(0)), next(iter(task.test))[0]
    end: dict[str, Tensor] = {}

    def look(*_: object) -> None:
        if end:
            return
        scores, mask = flat(list(gems[0].scores())), gems[0].mask()
        assert 0 <= scores.min() < scores.max() <= 1
        moved.append(scores)
        masks.append(mask)
        for name, kept in mask.items():
            weight = used(gems[0].model, name)
            assert ((weight == 0) | (kept & torch.isclose(weight, initial[name]))).all()

    def keep(stage: Stage, model: nn.Module, mask: Mask) -> None:
        if stage.name == "search":
            end.update(state(model))
            gems[0].model.eval()
            torch.testing.assert_close(model.eval()(inputs), gems[0].model(inputs))

    handle = register_optimizer_step_post_hook(look)
    try:
        ticket = load_method(f"rare_gems:{options}")(task, 0.9, run=Run(on_stage=keep))
    finally:
        handle.remove()
    assert len(masks) == 15
    assert all(not (later[name] & ~mask[name]).any() for mask, later in itertools.pairwise(masks) for name in mask)
    assert not torch.equal(moved[0], moved[-1])
    assert same(dict(gems[0].mask()), dict(ticket.mask))

    model, kept = task.initial(0), dict(ticket.mask)  # fine-tuning starts from what was found, statistics and all
    model.load_state_dict(end)
    train_by_hand(task, model, always(kept), range(5))
    assert same(ticket.model, model)


@pytest.mark.parametrize(("period", "epochs", "freezes"), [(5, 5, 1), (2, 5, 2), (1, 4, 4)])
def test_freezes_share_out_the_target_evenly(period: int, epochs: int, freezes: int) -> None:
    shares: list[float] = []
    counts: list[int] = []

    def watch(model: nn.Module, active: Mask, share: float) -> None:
        shares.append(share)
        counts.append(active.num_kept)
        weights = prunable_weights(model)
        assert not any((weights[name][~kept] != 0).any() for name, kept in active.items())

    ticket = rare_gems(small(epochs=epochs), 0.9, period=period, on_freeze=watch)
    assert len(shares) == freezes
    assert shares == pytest.approx([0.1 ** (1 / freezes)] * freezes, rel=1e-2)
    assert math.prod(shares) == pytest.approx(0.1, rel=1e-2)
    after = [*counts[1:], ticket.mask.num_kept]
    assert counts[0] == WEIGHTS
    assert after == pytest.approx([share * count for share, count in zip(shares, counts, strict=True)], abs=0.5)
    assert after[-1] == 646


def test_the_penalty_pulls_scores_down() -> None:
    found = {}
    for l2 in (0.0, 0.05):

        def keep(model: nn.Module, active: Mask, share: float, l2: float = l2) -> None:
            found[l2] = sum(int((w != 0).sum()) for w in prunable_weights(model).values())

        rare_gems(small(), 0.5, l2=l2, on_freeze=keep)
    assert found[0.05] < found[0.0] - 100
