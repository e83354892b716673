"""Damage to kept work and to saved files: what a program makes of a flipped bit, a cut and a copied file.

Each case makes files as a user does, damages one of them, and does the same again. The answer must be the same bits, or
a refusal. Another answer without a refusal is a silent use.
"""

import random
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import howsparse
from howsparse.experiments.study import study
from howsparse.limit.measure import Measured
from howsparse.methods import Run, Stages, Ticket
from howsparse.store import digest
from howsparse.training import fit

__all__ = ["CASES", "DAMAGES", "outcomes_of"]

OPTIONS = howsparse.LimitOptions(max_products=32, tolerance=0.05)


@dataclass(frozen=True)
class Case:
    """Kept files of one kind.

    Attributes:
        pattern: glob pattern of the files in the case's folder.
        make: ``make(folder)`` writes the files; a stopped computation is one that `again` finishes.
        again: ``again(folder)`` reads the files, and returns a digest of the answer.
    """

    pattern: str
    make: Callable[[Path], object]
    again: Callable[[Path], str]


def outcomes_of(case: Case, damage: Callable[[list[Path], random.Random], object], trials: int) -> Counter[str]:
    """What became of ``trials`` damages: "refused", "made again", "no effect" (a bit that says nothing) or "silent"."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        whole, damaged = Path(name) / "whole", Path(name) / "damaged"
        whole.mkdir()
        case.make(whole)
        shutil.copytree(whole, damaged)
        right = case.again(damaged)
        for trial in range(trials):
            shutil.rmtree(damaged)
            shutil.copytree(whole, damaged)
            damage(sorted(damaged.rglob(case.pattern)), random.Random(trial))
            found[_outcome(case, damaged, right)] += 1
    return found


def _outcome(case: Case, folder: Path, right: str) -> str:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            answer = case.again(folder)
        except howsparse.InputError as error:
            return "refused" if "\n" not in str(error) else "more than one line"
        except Exception as error:
            return f"traceback, {type(error).__name__}"
    if answer != right:
        return "silent"
    return "made again" if any(" anew" in str(each.message) or "again" in str(each.message) for each in told) else (
        "no effect"
    )  # fmt: skip


def flip(files: list[Path], draw: random.Random) -> None:
    """Flip one random bit of a random file."""
    file = draw.choice(files)
    content = bytearray(file.read_bytes())
    place = draw.randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    file.write_bytes(content)


def cut(files: list[Path], draw: random.Random) -> None:
    """Cut a random file at a random place."""
    file = draw.choice(files)
    content = file.read_bytes()
    file.write_bytes(content[: draw.randrange(len(content))])


def copy_over(files: list[Path], draw: random.Random) -> None:
    """Copy a random file over another one of its kind."""
    shutil.copyfile(*draw.sample(files, 2))


DAMAGES = {"flipped bit": flip, "cut": cut, "copied over another": copy_over}


class _Stopped(Exception):
    pass


def _network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def _data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    inputs = torch.randn(256, 8, generator=torch.Generator().manual_seed(1))
    return list(zip(inputs.split(64), inputs[:, :4].argmax(1).split(64), strict=True))


def _problem() -> howsparse.Problem:
    return howsparse.Problem(_network, train=_data(), test=_data(), epochs=2)


def _state(model: nn.Module) -> str:
    return digest(dict(model.state_dict()))


def _training(folder: Path) -> str:
    """Two kept trainings."""
    states = []
    for seed in (0, 1):
        model = _problem().initial(seed)
        Stages(_problem(), seed, Run(folder)).train("dense", model)
        states.append(_state(model))
    return digest(states)


def _fit(folder: Path, epochs: int) -> str:
    """Two trainings with a checkpoint each."""
    states = []
    for seed in (0, 1):
        model = _network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        fit(model, optimizer, lambda epoch: _data(), epochs, checkpoint=folder / f"{seed}.safetensors", seed=seed)
        states.append(_state(model))
    return digest(states)


def _study(folder: Path) -> str:
    """Two kept studies, with their trainings and limits."""
    found = [study(_problem(), seed, Run(folder, limit=OPTIONS)).model_dump(mode="json") for seed in (0, 1)]
    for each in found:  # times differ from run to run
        each.pop("seconds")
        each["history"] = None
    return digest(repr(found))


def _limit(folder: Path, stop: bool = False) -> str:
    def progress(stage: str, done: int, total: int) -> None:
        if stop and (stage, done) == ("bracket", 8):
            raise _Stopped

    found = []
    for seed in (0, 1):
        options = replace(OPTIONS, seed=seed)
        limit = howsparse.pruning_limit(_network(), _data(), options=options, keep=folder, progress=progress)
        found.append(repr(limit.summary()))
    return digest(found)


def _stopped_limit(folder: Path) -> None:
    try:
        _limit(folder, stop=True)
    except _Stopped:
        return


def _saved(folder: Path) -> None:
    """A file of each kind that a user saves, twice."""
    model, data = _network(), _data()
    for seed in (0, 1):
        howsparse.random_mask(model, 0.5, seed=seed).save(folder / f"{seed}.mask")
        howsparse.measure(model, data, max_drop=0.1 * (1 + seed), progress=False).save(folder / f"{seed}.measured")
        options = replace(OPTIONS, seed=seed)
        howsparse.pruning_limit(model, data, options=options, progress=False).save(folder / f"{seed}.limit")
        howsparse.methods.one_shot(_problem(), 0.5, seed).save(folder / f"{seed}.ticket")


def _loaded(kind: str, load: Callable[[Path], object]) -> Case:
    def again(folder: Path) -> str:
        return digest([repr(load(folder / f"{seed}.{kind}")) for seed in (0, 1)])

    return Case(f"*.{kind}", _saved, again)


def _ticket(path: Path) -> str:
    ticket = Ticket.load(path, _network())
    return digest([dict(ticket.model.state_dict()), dict(ticket.mask), repr(ticket.history)])


CASES: dict[str, Case] = {
    "checkpoint": Case("*.safetensors", lambda folder: _fit(folder, 2), lambda folder: _fit(folder, 3)),
    "training": Case("training-*.safetensors", _training, _training),
    "study": Case("study-*.safetensors", _study, _study),
    "product": Case("product-*.safetensors", _stopped_limit, _limit),
    "limit": Case("limit-*.safetensors", _limit, _limit),
    "saved mask": _loaded("mask", lambda path: digest(dict(howsparse.Mask.load(path)))),
    "saved limit": _loaded("limit", lambda path: howsparse.PruningLimit.load(path).summary()),
    "saved measurement": _loaded("measured", lambda path: Measured.load(path).curve),
    "saved ticket": _loaded("ticket", _ticket),
}


def copied_kinds() -> list[str]:
    """Kinds of kept files whose place says what they are; a user may give a saved file any name."""
    return [kind for kind in CASES if not kind.startswith("saved")]


def summary(found: Counter[str]) -> dict[str, Any]:
    """The counts, with those of silent uses and tracebacks, which should be 0."""
    good = ("refused", "made again", "no effect")
    return {"tried": found.total(), "wrong": sum(n for what, n in found.items() if what not in good), **found}
