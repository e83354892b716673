"""Ctrl-C at every line of the package: is the model afterwards as it was, and are torch's settings?

    python -m benchmarks.interrupts [--stride 1] [--record results/reliability.jsonl]

Each function is run on a tiny network once for the first and once for the last execution of each line of the package
that it reaches, with a KeyboardInterrupt at that line. One core needs about ten minutes.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

import howsparse
from benchmarks.commands import own_command
from howsparse.limit.certify import certify_sequence
from howsparse.limit.held_out import HeldOut, check_held_out
from howsparse.limit.sequence import Question
from howsparse.records import Measurement, append_record, provenance
from howsparse.risk.guard import guarded

PACKAGE = str(Path(howsparse.__file__).parent)

Work = Callable[[nn.Module], object]
Line = tuple[str, int]  # file and number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stride", type=int, default=1, help="of the lines, one in so many")
    parser.add_argument("--record", type=Path, default=Path("results/reliability.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, work in WORK.items():
        tried, changed = interrupted(work, options.stride)
        print(f"{name}: {tried} interruptions, {len(changed)} changed something {changed[:5]}", file=sys.stderr)
        found = {"check": f"{name}, interrupted", "tried": tried, "wrong": len(changed), "stride": options.stride}
        made = provenance(own_command("benchmarks.interrupts"))
        append_record(Measurement(kind="reliability", made=made, **found), options.record)


def network() -> nn.Module:
    """A network with a convolution, a norm and a linear layer, in training mode."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).train()


def data(examples: int = 20) -> list[tuple[Tensor, Tensor]]:
    """One batch of images with labels that can be learned."""
    images = torch.randn(examples, 1, 3, 3, generator=torch.Generator().manual_seed(examples))
    return [(images, (images.sum((1, 2, 3)) > 0).long())]


def held_out(model: nn.Module) -> HeldOut:
    """The check of held-out data, the first step of `certify`."""
    return check_held_out(model, data(60), Question(max_drop=0.5), chosen_on=data())


@guarded
def certified(model: nn.Module) -> object:
    """A certificate of one mask, by the two steps of `certify`."""
    held = held_out(model)
    return certify_sequence(model, held, [howsparse.magnitude_mask(model, 0.1)], order="magnitude")


def _ticking() -> Callable[[], float]:
    """A clock that gives the same times in every run, so that every run executes the same lines."""
    return map(float, count()).__next__


WORK: dict[str, Work] = {
    "measure": lambda model: howsparse.measure(model, data(), tolerance=0.1, scan=[0.5], precision=0.4),
    "check_held_out": held_out,
    "certify": certified,
    "rank": lambda model: howsparse.rank(model, "wanda", data()),
    "prune_and_repair": lambda model: howsparse.prune_and_repair(model, 0.5, data(), repair="layers"),
    "audit": lambda model: howsparse.audit(model, howsparse.magnitude_mask(model, 0.5), data(), points=1),
    "recoverable": lambda model: howsparse.recoverable(model, data(), tolerance=0.1),
    "limit_cost": lambda model: howsparse.limit_cost(model, data(), clock=_ticking()),
    "pruning_limit": lambda model: howsparse.pruning_limit(model, data(), tolerance=0.1, max_products=32),
}


def interrupted(work: Work, stride: int = 1) -> tuple[int, list[str]]:
    """Interrupt some work at its lines.

    Args:
        work: what is done with a model.
        stride: of the lines, one in so many.

    Returns:
        The number of interruptions, and the lines after which the model or torch was not as before.
    """
    work(network())  # what is imported or computed once only
    lines = lines_of(lambda: work(network()))
    done, model, tried = network(), network(), 0
    changed: list[str] = []
    work(done)
    before, after = state_of(model), contents(done)
    for place in places(lines, stride):
        if not struck(partial(work, model), place):
            continue
        tried += 1
        if state_of(model) != before:
            if contents(model) != after:  # else Ctrl-C came when the work was done
                file, number = lines[place]
                changed.append(f"{Path(file).name}:{number}")
            model = network()
            before = state_of(model)
    return tried, changed


def contents(model: nn.Module) -> dict[str, Any]:
    """The numbers of a model, and the modes of its layers."""
    numbers: dict[str, Any] = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    return numbers | {f"{name}.training": module.training for name, module in model.named_modules()}


def lines_of(work: Callable[[], object]) -> list[Line]:
    """Every line of the package that is executed, in this order."""
    lines: list[Line] = []
    _traced(work, lambda frame: lines.append((frame.f_code.co_filename, frame.f_lineno)))
    return lines


def places(lines: list[Line], stride: int) -> list[int]:
    """The first and the last execution of every line; of these, one in ``stride``."""
    first: dict[Line, int] = {}
    last: dict[Line, int] = {}
    for place, line in enumerate(lines):
        first.setdefault(line, place)
        last[line] = place
    return sorted({*first.values(), *last.values()})[::stride]


def struck(work: Callable[[], object], place: int) -> bool:
    """Do the work, with Ctrl-C at the line of this number, from 0. False if the work ended before."""
    count = 0

    def strike(frame: FrameType) -> None:
        nonlocal count
        count += 1
        if count == place + 1:
            raise KeyboardInterrupt

    try:
        _traced(work, strike)
    except KeyboardInterrupt:
        return True
    return False


def _traced(work: Callable[[], object], on_line: Callable[[FrameType], None]) -> None:
    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            on_line(frame)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)


def state_of(model: nn.Module) -> dict[str, Any]:
    """Everything of a model and of torch's settings that must come back, as values that can be compared."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    hooks = {
        f"{name}.{attribute}": len(value)
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if "hooks" in attribute and value is not None
    }
    matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)
    return {
        "tensors": {name: (id(t), t.data_ptr(), t.tolist(), t.requires_grad, t.grad) for name, t in tensors},
        "modes": {name: module.training for name, module in model.named_modules()},
        "hooks": hooks,
        "random": torch.get_rng_state().tolist(),
        "gradients": torch.is_grad_enabled(),
        "fast attention": torch.backends.mha.get_fastpath_enabled(),
        "precision": getattr(matmul, "fp32_precision", None),
    }


if __name__ == "__main__":
    main()
