"""`certify_repaired`: the certificate of networks that were pruned and repaired."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from howsparse.errors import InputError
from howsparse.limit.certificate import Certificate, Step
from howsparse.limit.certify import candidates_around, certify_sequence
from howsparse.limit.held_out import HeldOut
from howsparse.limit.repaired import Repaired
from howsparse.progress import Progress
from howsparse.pruning.network import PrunedNetwork
from howsparse.risk.alone import alone
from howsparse.risk.guard import guarded

__all__ = ["candidates_below", "certify_repaired", "sparsities_to_certify"]

_GAPS = (1.0, 0.6, 0.3, 0.12)
_NEAR = 0.2  # of the distance to the measured sparsity


@alone
@guarded
def certify_repaired(
    model: nn.Module,
    repaired: Repaired,
    held: HeldOut,
    *,
    on_point: Callable[[Step], None] = lambda step: None,
    progress: Progress | bool | None = None,
) -> tuple[Certificate, PrunedNetwork | None]:
    """Certify a sparsity of the best order and repair, with networks that are made anew up to the measured sparsity.

    The networks depend on the data that calibrated and chose, not on the held-out examples. So the theorem for masks
    holds for them too. Each network costs a repair, except the networks that the search made.

    Args:
        model: the network before pruning; it comes back as it was.
        repaired: the best order and repair, with a sparsity above 0.
        held: held-out data, of `check_held_out`. Give it all data that calibrated and chose as ``chosen_on``.
        on_point, progress: as for `certify`.

    Returns:
        The certificate, and the certified network; None if nothing could be certified.

    Raises:
        InputError: the measured sparsity is 0, or the held-out data differ from pass to pass.

    >>> import torch
    >>> from howsparse.limit.held_out import check_held_out
    >>> from howsparse.limit.repaired import measure_repaired
    >>> from howsparse.limit.sequence import Question
    >>> model, inputs = nn.Linear(8, 2), torch.randn(900, 8)
    >>> targets = model(inputs).argmax(1)
    >>> choose, unseen = [(inputs[:500], targets[:500])], [(inputs[500:], targets[500:])]
    >>> held = check_held_out(model, unseen, Question(max_drop=0.05), chosen_on=choose)
    >>> found = measure_repaired(model, choose, calibration=choose, max_drop=0.05, repairs=["layers"])
    >>> certificate, network = certify_repaired(model, found, held)
    >>> certificate.sparsity == (0.0 if network is None else network.sparsity)
    True
    """
    best = repaired.best
    networks = (repaired.kept.get(each) or repaired.make(each) for each in sparsities_to_certify(repaired))
    told: dict[str, Any] = {"names": repaired.network.mask, "on_point": on_point, "progress": progress}
    certificate, found = certify_sequence(model, held, networks, order=best.order, repair=best.repair, **told)
    return certificate, found if isinstance(found, PrunedNetwork) else None


def sparsities_to_certify(repaired: Repaired) -> tuple[float, ...]:
    """The sparsities at which `certify_repaired` tests networks, in this order, until a test does not pass.

    Args:
        repaired: the best order and repair, with a sparsity above 0.
    """
    best = repaired.best
    if best.repair == "none":
        return candidates_around(best.sparsity)
    return candidates_below(best.sparsity, repaired.kept)


def candidates_below(measured: float, made: Iterable[float] = ()) -> tuple[float, ...]:
    """A few candidates for `certify_repaired`, up to a measured sparsity. Each new one costs a repair.

    They start at 60 % of it, where a repair loses little, so that the first test passes if there are enough examples.
    They are denser where at most twice as many weights stay as at the measured sparsity.

    Args:
        measured: the measured sparsity, in (0, 1).
        made: smaller sparsities at which there are networks already; they are candidates too, and stand for others near
            them.

    Raises:
        InputError: the measured sparsity is not in (0, 1).

    >>> candidates_below(0.5)
    (0.3, 0.38, 0.44, 0.476, 0.5)
    >>> candidates_below(0.9, [0.838, 0.88])
    (0.54, 0.72, 0.8, 0.838, 0.87, 0.88, 0.888, 0.9)
    """
    if not 0 < measured < 1:
        raise InputError(f"sparsity {measured:g} is outside (0, 1); give the fraction of weights that was removed")
    gap = min(0.4 * measured, 1 - measured)
    start = [each for each in (0.6 * measured, 0.8 * measured) if each < measured - gap - 1e-9]
    known = {measured, *(each for each in made if 0 < each < measured)}
    far = [
        round(each, 6)
        for each in (*start, *(measured - gap * share for share in _GAPS))
        if all(abs(each - other) > _NEAR * (measured - each) for other in known)
    ]
    return tuple(sorted({*known, *far}))
