"""The search for the best order and repair, against repairs and evaluations that are made here one by one."""

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from howsparse import InputError
from howsparse.limit.bench import Bench, bench_of
from howsparse.limit.certificate import Certificate
from howsparse.limit.certify import certify
from howsparse.limit.certify_repaired import candidates_below, certify_repaired
from howsparse.limit.contest import Trial, race
from howsparse.limit.goal import Goal, Point
from howsparse.limit.held_out import check_held_out
from howsparse.limit.paired import paired_p_value
from howsparse.limit.repaired import Repaired, compare_repairs, measure_repaired, repairs_named
from howsparse.limit.sequence import Question
from howsparse.pruning.masks import Mask, magnitude_mask
from howsparse.pruning.network import PrunedNetwork
from howsparse.pruning.repair import REPAIRS, prune_and_repair
from howsparse.risk.losses import cross_entropy
from howsparse.risk.spread import spread

pytestmark = pytest.mark.usefixtures("one_thread")

Batches = list[tuple[Tensor, Tensor]]


def digits(first: int, last: int) -> Batches:
    data = load_digits()
    chosen = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))[first:last]
    inputs, targets = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    return [(inputs[part], targets[part]) for part in chosen.split(100)]


TRAIN, CHOOSE, HELD_OUT = digits(0, 600), digits(600, 1000), digits(1000, 1797)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A network with BatchNorm that was trained for a second."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(15):
        for inputs, targets in TRAIN:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def found(network: nn.Module) -> Repaired:
    return measure_repaired(
        network,
        CHOOSE,
        calibration=TRAIN,
        max_drop=0.02,
        orders=["magnitude", "wanda"],
        repairs=["layers", "batchnorm", "rounds"],
        examples=300,
    )


def right(model: nn.Module, batches: Batches) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([model(inputs).argmax(1) == targets for inputs, targets in batches]).numpy()


def with_state(model: nn.Module, state: Any) -> nn.Module:
    changed = copy.deepcopy(model)
    changed.load_state_dict(dict(state))
    return changed


def test_the_network_is_that_of_the_best_row_of_the_table(network: nn.Module, found: Repaired) -> None:
    """Order, repair and sparsity, carried out by hand, give the same bits and the same accuracy."""
    assert found.sparsity == max(each.sparsity for each in found.combinations) > 0.5
    assert (found.network.order, found.network.repair) == (found.best.order, found.best.repair)
    model = copy.deepcopy(network)
    examples = spread(TRAIN, 300)
    mask = prune_and_repair(model, found.sparsity, examples, repair=found.best.repair, order=found.best.order)
    assert all(torch.equal(mask[name], found.network.mask[name]) for name in mask)
    assert all(torch.equal(found.network.state[name], value) for name, value in model.state_dict().items())
    accuracy = right(model, CHOOSE).mean()
    assert found.best.pruned.accuracy == pytest.approx(accuracy)
    assert accuracy >= right(network, CHOOSE).mean() - 0.02 - 1e-9


def test_every_point_of_the_table_is_a_network(network: nn.Module, found: Repaired) -> None:
    assert {(each.order, each.repair) for each in found.combinations} >= {
        ("magnitude", "none"),
        ("magnitude", "layers"),
        ("wanda", "layers"),
    }
    assert {each.repair for each in found.combinations} == {"none", "layers", "batchnorm", "rounds"}
    dense = right(network, CHOOSE).mean()
    for each in found.combinations:
        assert each.points[0] == found.dense
        meets = [point.sparsity for point in each.points if point.accuracy >= dense - 0.02 - 1e-9]
        assert each.sparsity == max(meets)
        assert each.seconds > 0
        for point in each.points[1:]:
            model = copy.deepcopy(network)
            prune_and_repair(model, point.sparsity, spread(TRAIN, 300), repair=each.repair, order=each.order)
            assert point.accuracy == pytest.approx(right(model, CHOOSE).mean()), (each.order, each.repair)


def test_what_is_kept_is_what_is_made_anew(found: Repaired) -> None:
    """The certificate takes networks of the search in place of new ones."""
    assert max(found.kept) == found.sparsity
    for sparsity, network in found.kept.items():
        made = found.make(sparsity)
        assert network.sparsity == made.sparsity == sparsity
        assert (network.order, network.repair) == (found.best.order, found.best.repair)
        assert all(torch.equal(network.state[name], value) for name, value in made.state.items())


def test_candidates_rise_to_the_measured_sparsity() -> None:
    for measured in (0.02, 0.3, 0.77, 0.98):
        for made in ((), (0.9 * measured, 0.97 * measured), (0.1 * measured,)):
            candidates = candidates_below(measured, made)
            assert list(candidates) == sorted(set(candidates))
            assert candidates[-1] == measured
            assert candidates[0] <= 0.6 * measured + 1e-6
            assert set(made) < set(candidates)
            assert len(candidates) <= 9
    with pytest.raises(InputError, match="outside"):
        candidates_below(0.0)


def test_a_repair_keeps_the_mask_and_reaches_more_than_none(found: Repaired) -> None:
    assert all((found.network.state[name][~kept] == 0).all() for name, kept in found.network.mask.items())
    none = next(each for each in found.combinations if each.repair == "none")
    assert found.sparsity > none.sparsity + 0.05
    orders_at, repairs_at = found.compared_at
    assert orders_at == pytest.approx((1 + none.sparsity) / 2, abs=1e-3)
    for each in found.combinations:
        if each.repair != "none":
            assert each.at(orders_at) or each.at(repairs_at)


def test_the_model_and_the_random_state_are_as_before(network: nn.Module) -> None:
    model = copy.deepcopy(network).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    options: dict[str, Any] = {"calibration": TRAIN, "max_drop": 0.05, "examples": 200}

    def stop(order: str, repair: str, point: Point) -> None:
        if repair == "layers":
            raise KeyboardInterrupt

    measure_repaired(model, CHOOSE, orders=["random"], repairs=["layers"], precision=0.1, **options)
    with pytest.raises(KeyboardInterrupt):
        measure_repaired(model, CHOOSE, orders=["magnitude"], repairs=["layers"], on_point=stop, **options)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_the_same_call_gives_the_same_bits(network: nn.Module) -> None:
    options: dict[str, Any] = {"calibration": TRAIN, "orders": ["random"], "repairs": ["layers"], "seed": 3}
    once, again = (compare_repairs(network, CHOOSE, 0.8, **options) for _ in range(2))
    assert all(torch.equal(once.network.state[name], value) for name, value in again.network.state.items())
    other = compare_repairs(network, CHOOSE, 0.8, **options | {"seed": 4})
    assert any((once.network.mask[name] != kept).any() for name, kept in other.network.mask.items())


def test_at_a_given_sparsity_the_best_accuracy_is_taken(network: nn.Module) -> None:
    repairs = ["none", "layers", "rounds"]
    found = compare_repairs(network, CHOOSE, 0.85, calibration=TRAIN, orders=["magnitude"], repairs=repairs)
    reached = {}
    for repair in repairs:
        model = copy.deepcopy(network)
        prune_and_repair(model, found.sparsity, TRAIN, repair=repair)
        reached[repair] = right(model, CHOOSE).mean()
    assert {each.repair: each.pruned.accuracy for each in found.combinations} == pytest.approx(reached)
    assert reached[found.best.repair] == max(reached.values()) > reached["none"]
    assert found.goal is None
    assert found.sparsity == pytest.approx(0.85, abs=1e-3)


def test_an_order_that_is_worse_at_first_may_win_after_the_repair(network: nn.Module) -> None:
    """Both orders are repaired before they are compared: the order that is best without repair does not decide."""
    found = measure_repaired(
        network, CHOOSE, calibration=TRAIN, max_drop=0.02, orders=["random", "magnitude"], repairs=["layers"]
    )
    assert found.best.order == "magnitude"
    assert {(each.order, each.repair) for each in found.combinations} == {
        ("random", "none"),
        ("random", "layers"),
        ("magnitude", "layers"),
    }
    assert len(next(each for each in found.combinations if each == found.best).points) > 3
    worse = next(each for each in found.combinations if (each.order, each.repair) == ("random", "layers"))
    assert len(worse.points) <= 3  # dense, where all are compared, and perhaps one more: it was not followed


def test_what_does_not_fit_is_said_and_not_fatal() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    repairs = ["batchnorm", "layers"]
    found = compare_repairs(model, CHOOSE, 0.5, calibration=TRAIN, orders=["magnitude"], repairs=repairs)
    assert list(found.refused) == ["magnitude, batchnorm"]
    assert "no BatchNorm layer" in found.refused["magnitude, batchnorm"]
    assert [each.repair for each in found.combinations] == ["layers"]
    with pytest.raises(InputError, match="no BatchNorm layer"):
        compare_repairs(model, CHOOSE, 0.5, calibration=TRAIN, orders=["magnitude"], repairs="batchnorm")


def test_auto_has_every_repair_but_none_and_the_global_step_alone() -> None:
    assert set(repairs_named("auto")) == REPAIRS.keys() - {"none", "global"}
    assert repairs_named(["none", "rounds"]) == ("none", "rounds")


def quiet(*told: object) -> None:
    """Nobody listens."""


class Scripted(Bench):
    """A bench whose combinations have known ends: what is lost grows exponentially up to there and above."""

    ends: dict[tuple[str, str], float]
    steepness: float
    networks: list[tuple[str, str, float]]

    @classmethod
    def of(cls, ends: dict[tuple[str, str], float], steepness: float = 12.0) -> "Scripted":
        bench = cls(nn.Linear(1000, 1000), [], [], nn.functional.mse_loss, None, ["weight"], 0, None, quiet, quiet)  # type: ignore[arg-type]
        bench.goal, bench._dense, bench.networks = Goal(tolerance=0.5), Point(0.0, 1.0, None), []
        bench.ends, bench.steepness = ends, steepness
        return bench

    def made(self, order: str, repair: str, sparsity: float) -> Any:
        if (order, repair) not in self.ends:
            raise InputError(f"{order} with {repair} does not fit")
        self.networks.append((order, repair, sparsity))
        self.prices[repair] = {"layers": 1.0, "batchnorm": 0.5}.get(repair, 5.0)
        lost = 0.5 * np.exp(self.steepness * (sparsity - self.ends[order, repair]))
        return SimpleNamespace(order=order, repair=repair, sparsity=sparsity), Point(sparsity, 1.0 + lost, None)


ENDS = {
    ("magnitude", "layers"): 0.62,
    ("erk", "layers"): 0.56,
    ("wanda", "layers"): 0.2,
    ("magnitude", "batchnorm"): 0.4,
    ("magnitude", "rounds"): 0.66,
    ("magnitude", "layers+global"): 0.655,
    ("magnitude", "rounds+global"): 0.7,
}
AUTO = ["layers", "batchnorm", "rounds", "layers+global", "rounds+global"]


@pytest.mark.parametrize("steepness", [3.0, 12.0, 60.0])
@pytest.mark.parametrize("start", [0.5, 0.72, 0.9])
def test_the_contest_finds_the_best_with_few_networks(steepness: float, start: float) -> None:
    bench = Scripted.of(ENDS, steepness)
    trials, compared_at = race(bench, ["erk", "magnitude", "wanda"], AUTO, 0.3, start, 0.01)
    best = max(trials, key=lambda trial: trial.rank)
    assert (best.order, best.repair) == ("magnitude", "rounds+global")
    assert 0.69 <= best.sparsity <= 0.7
    assert len(set(bench.networks)) == len(bench.networks), "no network is made twice"
    slow = [each for each in bench.networks if each[1] not in ("layers", "batchnorm")]
    assert bench.networks.index(slow[0]) > max(i for i, each in enumerate(bench.networks) if each[1] == "layers")
    assert ("magnitude", "layers+global") not in {each[:2] for each in slow}, "rounds are the better start"
    assert [s for _, repair, s in slow if repair == "rounds"] == [compared_at[1]]
    assert 0.62 < compared_at[1] <= 0.63
    assert len(slow) <= 6
    assert len(bench.networks) <= 16


def test_a_repair_that_does_not_fit_is_passed_over() -> None:
    bench = Scripted.of({("magnitude", "rounds"): 0.6})
    trials, _ = race(bench, ["erk", "magnitude"], ["layers", "rounds", "batchnorm"], 0.3, 0.65, 0.01)
    assert [(each.order, each.repair) for each in trials] == [("magnitude", "rounds")]
    assert set(bench.refused) == {"erk, layers", "magnitude, layers", "erk, rounds", "magnitude, batchnorm"}
    assert trials[0].sparsity == pytest.approx(0.595, abs=0.006)
    with pytest.raises(InputError, match="erk with layers does not fit"):
        race(bench, ["erk"], ["layers"], 0.3, 0.65, 0.01)


def test_a_repair_that_goes_on_from_another_one_is_named_alone() -> None:
    bench = Scripted.of({("magnitude", "rounds+global"): 0.6})
    trials, _ = race(bench, ["magnitude"], ["rounds+global"], 0.3, 0.65, 0.01)
    assert trials[0].sparsity == pytest.approx(0.595, abs=0.006)


@pytest.mark.parametrize("start", ["layers", "rounds"])
def test_a_network_that_goes_on_from_its_start_has_the_same_bits(network: nn.Module, start: str) -> None:
    def fresh() -> Bench:
        return bench_of(network, CHOOSE, TRAIN, 300, cross_entropy, None, None, 0, quiet, quiet)

    whole, whole_point = fresh().made("wanda", f"{start}+global", 0.8)
    bench = fresh()
    bench.made("wanda", start, 0.8)
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("howsparse.limit.bench.prune_and_repair", lambda *given, **options: calls.append(given))
        parts, point = bench.made("wanda", f"{start}+global", 0.8)
    assert not calls
    assert point == whole_point
    assert all(torch.equal(value, parts.state[name]) for name, value in whole.state.items())
    assert bench.prices[f"{start}+global"] > bench.prices[start]


def test_the_calls_before_following_tell_time_and_number(network: nn.Module) -> None:
    told: list[tuple[str, str, float, int]] = []
    options: dict[str, Any] = {"calibration": TRAIN, "max_drop": 0.05, "orders": ["magnitude"], "examples": 200}
    found = measure_repaired(
        network, CHOOSE, repairs=["layers"], on_follow=lambda *given: told.append(given), **options
    )
    ((order, repair, seconds, networks),) = told
    assert (order, repair) == ("magnitude", "layers")
    assert seconds < found.best.seconds
    assert networks >= 1


def test_the_search_finds_the_edge_of_any_goal() -> None:
    """A trial whose networks meet the goal up to a known sparsity: climbing and bisecting end beside it."""
    model = nn.Linear(100, 100)
    for edge in (0.013, 0.4, 0.737, 0.96, 0.995):
        for precision in (0.01, 0.03):
            bench = bench_of(model, [], TRAIN, 10, nn.functional.mse_loss, None, None, 0, quiet, quiet)  # type: ignore[arg-type]
            bench.goal, bench._dense = Goal(tolerance=0.5), Point(0.0, 0.0, None)
            made: list[float] = []

            class Known(Trial):
                def at(self, sparsity: float, edge: float = edge, made: list[float] = made) -> Point:
                    sparsity = self.bench.snap(sparsity)
                    made.append(sparsity)
                    return self.points.setdefault(sparsity, Point(sparsity, float(sparsity > edge), None))

            start = 0.5
            trial = Known(bench, "magnitude", "layers", {0.0: bench.dense})
            if start <= edge:
                trial.climb(start, 0.1, precision)
            else:
                trial.follow(0.0, start, precision)
            above = min(s for s in trial.points if s > edge)
            assert trial.sparsity <= edge
            assert above - trial.sparsity <= precision + 1e-9
            assert above - trial.sparsity <= (1 - trial.sparsity) / 5
            assert len(set(made)) <= 16


@pytest.fixture(scope="module")
def certified(network: nn.Module, found: Repaired) -> tuple[Certificate, PrunedNetwork]:
    held = check_held_out(network, HELD_OUT, Question(max_drop=0.03), chosen_on=[*TRAIN, *CHOOSE])
    certificate, written = certify_repaired(network, found, held)
    assert written is not None
    return certificate, written


def test_the_certificate_is_that_of_the_networks_outcomes(
    network: nn.Module, found: Repaired, certified: tuple[Certificate, PrunedNetwork]
) -> None:
    """Every test, by hand: make the network, count outcomes, and take the p-value of the counts."""
    certificate, written = certified
    before = right(network, HELD_OUT)
    passed = 0.0
    assert [step.sparsity for step in certificate.steps] == [
        found.make(each).sparsity for each in candidates_below(found.sparsity, found.kept)[: len(certificate.steps)]
    ]
    for step in certificate.steps:
        after = right(with_state(network, found.make(step.sparsity).state), HELD_OUT)
        lost, won = int((before & ~after).sum()), int((~before & after).sum())
        p_value = paired_p_value(lost, won, len(before), 0.03, 0.05)
        assert (step.lost, step.won, step.p_value) == (lost, won, p_value)
        assert step.score == pytest.approx(after.mean())
        passed = step.sparsity if p_value <= 0.05 else passed
    assert 0 < certificate.sparsity == passed == written.sparsity <= found.sparsity
    assert all(step.p_value <= 0.05 for step in certificate.steps[:-1])
    assert (certificate.order, certificate.repair) == (found.best.order, found.best.repair)
    assert certificate.overlap_checked
    assert f"({found.best.order} order, {found.best.repair} repair; 797 held-out" in certificate.sentence


def test_a_certificate_of_a_repaired_network_is_for_this_network_alone(
    network: nn.Module, certified: tuple[Certificate, PrunedNetwork], tmp_path: Any
) -> None:
    certificate, written = certified
    certificate.save(tmp_path / "certificate.safetensors")
    again = Certificate.load(tmp_path / "certificate.safetensors")
    repaired = with_state(network, written.state)
    assert again.matches(repaired)
    assert not again.matches(network), "the mask without the repair was not certified"
    assert again.repair == certificate.repair
    repaired.get_parameter("0.bias").data[0] += 1
    assert not again.matches(repaired)


def test_certify_takes_networks_in_place_of_masks(network: nn.Module, found: Repaired) -> None:
    plain = magnitude_mask(network, 0.3)
    masked = copy.deepcopy(network)
    plain.apply_(masked)
    before = copy.deepcopy(network.state_dict())
    by_mask = certify(network, HELD_OUT, max_drop=0.03, masks=[plain])
    by_network = certify(network, HELD_OUT, max_drop=0.03, masks=[PrunedNetwork.of(masked, plain)])
    assert by_mask.steps == by_network.steps
    assert by_mask.digest == by_network.digest
    assert (by_mask.repair, by_network.repair) == ("none", "given")
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_a_state_of_another_model_is_refused() -> None:
    network = PrunedNetwork.of(nn.Linear(2, 3), Mask(weight=torch.ones(3, 2).bool()))
    for other in (nn.Linear(2, 2), nn.Linear(2, 3, bias=False), nn.Sequential(nn.Linear(2, 3))):
        with pytest.raises(InputError, match="the network is for another model"):
            network.apply_(other)


def test_examples_at_equal_distances_have_all_classes() -> None:
    for sizes in ([1000], [10] * 100, [1, 499, 500]):
        inputs = torch.arange(1000.0)
        batches = list(zip(inputs.split(sizes), (inputs // 100).long().split(sizes), strict=True))
        for count in (1, 7, 100, 999):
            taken = spread(batches, count)
            values = torch.cat([batch[0] for batch in taken])
            assert len(values) == count
            expected = [i for i in range(1000) if (i + 1) * count // 1000 > i * count // 1000]
            assert values.tolist() == expected
            assert torch.equal(torch.cat([batch[1] for batch in taken]), values.long() // 100)
            assert max(len(batch[0]) for batch in taken) <= max(sizes)
    assert spread(batches, 1000) == batches
    texts = [{"input_ids": torch.zeros(4, width).long(), "name": "a"} for width in (3, 3, 5)]
    assert [batch["input_ids"].shape for batch in spread(texts, 6)] == [(4, 3), (2, 5)]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"orders": ["size"]}, "order 'size' is not known; use one of magnitude"),
    ({"orders": []}, "order '' is not known"),
    ({"repairs": "glue"}, "repair 'glue' is not known; use one of none, batchnorm, layers"),
    ({"repairs": []}, "repair '' is not known"),
    ({"max_drop": 2.0}, "max_drop 2 is not below 1"),
    ({"max_drop": 0.1, "tolerance": 0.1}, "2 goals are given; give exactly one"),
    ({"calibration": []}, "there are no calibration examples"),
    ({"examples": 0}, "examples 0 is not positive"),
    ({"precision": 0.0}, "precision 0 is not positive"),
    ({"names": ["bias"]}, "'bias' is not a prunable weight"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[message for _, message in WRONG])
def test_mistakes_are_refused_in_one_line(network: nn.Module, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        measure_repaired(network, CHOOSE, **{"calibration": TRAIN} | arguments)
    assert "\n" not in str(caught.value)
