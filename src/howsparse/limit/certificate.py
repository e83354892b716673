"""`Certificate`: a sparsity with a proven bound for what is lost, and the tests that prove it."""

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import nn

from howsparse.files import load_document, save_document
from howsparse.limit.paired import Test
from howsparse.pruning.masks import Mask
from howsparse.pruning.prune import pruned
from howsparse.risk.alone import alone
from howsparse.risk.guard import guarded_with_values
from howsparse.risk.weights import select_weights
from howsparse.shown import Card, Shown
from howsparse.store import digest

__all__ = ["Certificate", "Step", "network_digest"]

_VERSION = 2  # version 1 has no repair


@dataclass(frozen=True)
class Step:
    """The test of one mask.

    Attributes:
        sparsity: fraction of the weights removed.
        lost: number of held-out examples whose score is lower (whose loss is higher) than before pruning.
        won: number of held-out examples whose score is higher (whose loss is lower) than before pruning.
        score: mean score of the pruned network on the held-out examples; with ``tolerance``, its mean loss.
        p_value: p-value of the hypothesis that the population loses more than is allowed.
    """

    sparsity: float
    lost: int
    won: int
    score: float
    p_value: float


@dataclass(frozen=True, eq=False, repr=False)
class Certificate(Shown):
    """What was certified, and how.

    Attributes:
        sparsity: the certified sparsity; 0.0 if nothing could be certified.
        max_drop: largest drop of the mean score on the population, as a fraction; None if ``tolerance`` was asked for.
        tolerance: largest rise of the mean loss on the population; None if ``max_drop`` was asked for.
        loss_bound: losses of single examples count as at most this; None with ``max_drop``.
        confidence: probability that the certificate holds, over the random draw of the held-out examples.
        metric: name of the score, for example "accuracy"; "loss" with ``tolerance``.
        num_examples: number of held-out examples that have predictions.
        dense_score: mean score on the held-out examples before pruning; with ``tolerance``, the mean loss.
        test: "exact paired" or "betting".
        steps: the tests in the order in which they were made; the last one may be the one that did not pass.
        order: name of the order in which the weights were removed.
        digest: digest of the certified mask and of all weights that stay; see `matches`.
        overlap_checked: whether the held-out examples were compared with those that chose the order or the sparsities.
        mask: the certified mask; it removes nothing if nothing could be certified.
        repair: name of the repair that changed the weights that stay; "none" if they are those of before.

    >>> import torch
    >>> from howsparse import certify
    >>> data = [(torch.eye(4).repeat(100, 1), torch.arange(4).repeat(100))]
    >>> model = nn.Linear(4, 4, bias=False)
    >>> model.weight.data = torch.eye(4)
    >>> found = certify(model, data, candidates=[0.75], max_drop=0.05)
    >>> found.sparsity, found.matches(model)
    (0.75, True)
    """

    sparsity: float
    max_drop: float | None
    tolerance: float | None
    loss_bound: float | None
    confidence: float
    metric: str
    num_examples: int
    dense_score: float
    test: Test
    steps: tuple[Step, ...]
    order: str
    digest: str
    overlap_checked: bool
    mask: Mask = field(repr=False)
    repair: str = "none"

    @property
    def holds(self) -> bool:
        """Whether any sparsity was certified."""
        return self.certified is not None

    @property
    def certified(self) -> Step | None:
        """The step of the certified mask; None if nothing could be certified."""
        passed = [step for step in self.steps if step.p_value <= self.level]
        return passed[-1] if passed else None

    @property
    def level(self) -> float:
        """Level of each test: 1 - confidence."""
        return round(1 - self.confidence, 12)

    @property
    def pruned_score(self) -> float:
        """Mean score of the certified network on the held-out examples; with ``tolerance``, its mean loss."""
        return self.dense_score if self.certified is None else self.certified.score

    @property
    def lost(self) -> int:
        """Number of held-out examples on which the certified network is worse than the network before pruning."""
        return 0 if self.certified is None else self.certified.lost

    @property
    def won(self) -> int:
        """Number of held-out examples on which the certified network is better than the network before pruning."""
        return 0 if self.certified is None else self.certified.won

    @property
    def sentence(self) -> str:
        """The certificate in words."""
        repair = "" if self.repair == "none" else f", {self.repair} repair"
        how = f"{self.order} order{repair}; {self.num_examples:,} held-out examples, {self.test} test"
        if not self.holds:
            first = self.steps[0]
            return (
                f"Nothing is certified: with {_percent(first.sparsity)} of the weights removed, {self._claim} cannot be"
                f" shown with {_percent(self.confidence)} confidence ({how}, p = {first.p_value:.2g})."
            )
        return (
            f"With {_percent(self.confidence)} confidence, {self._claim} when {_percent(self.sparsity)} of the weights"
            f" are removed ({how})."
        )

    @property
    def _claim(self) -> str:
        if self.max_drop is None:
            return (
                f"the mean loss on the population (at most {self.loss_bound:g} per example) rises by at most"
                f" {self.tolerance:g}"
            )
        points = f"{100 * self.max_drop:g} point{'' if self.max_drop == 0.01 else 's'}"
        return f"the {self.metric} on the population drops by at most {points}"

    def summary(self) -> dict[str, Any]:
        """The certificate's numbers without its mask, as in records and in ``--json``.

        Returns:
            The values of the attributes by name, and the counts that follow from them.
        """
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("mask", "steps")}
        return {
            "certified": self.sparsity if self.holds else None,
            "sentence": self.sentence,
            **plain,
            "pruned_score": self.pruned_score,
            "lost": self.lost,
            "won": self.won,
            "steps": [asdict(step) for step in self.steps],
        }

    def __repr__(self) -> str:
        return f"Certificate(sparsity={self.sparsity:.4g}, confidence={self.confidence:g}, order='{self.order}')"

    def card(self) -> Card:
        """The certificate in words, with what was counted.

        Returns:
            The table. It prints as text, and a notebook shows it as HTML.
        """
        rows = (
            ("certified", _percent(self.sparsity) if self.holds else "nothing"),
            (f"held-out {self.metric}", f"{self.dense_score:.4g} -> {self.pruned_score:.4g}"),
            ("examples worse, better", f"{self.lost:,}, {self.won:,} of {self.num_examples:,}"),
            ("tests", f"{len(self.steps)}, {self.test}"),
        )
        return Card("Certificate", rows, (self.sentence,))

    def matches(self, model: nn.Module) -> bool:
        """Whether this certificate is for ``model``, before or after the mask is applied: the mask and all weights.

        After a repair, it is for the repaired network only.

        Args:
            model: the network to compare.

        Returns:
            True if it is the certified network.

        Raises:
            InputError: the mask does not fit the model.
        """
        return network_digest(model, self.mask) == self.digest

    def save(self, path: str | Path) -> None:
        """Write the certificate with its mask to one safetensors file. An interrupted call leaves no partial file.

        Args:
            path: path of the file; an existing file is replaced.
        """
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "mask"}
        save_document(
            path, "certificate", _VERSION, values | {"steps": [asdict(step) for step in self.steps]}, self.mask
        )

    @classmethod
    def load(cls, path: str | Path) -> "Certificate":
        """Read a file that `save` wrote.

        Args:
            path: path of the file that `save` wrote.

        Returns:
            The certificate that was saved.

        Raises:
            InputError: the file does not exist, has other contents, or is damaged.
        """
        values: dict[str, Any]
        values, tensors = load_document(path, "certificate", _VERSION)
        values["steps"] = tuple(Step(**step) for step in values["steps"])
        return cls(**values, mask=Mask({name: kept.bool() for name, kept in tensors.items()}))


@alone
@guarded_with_values
def network_digest(model: nn.Module, mask: Mask) -> str:
    """Digest of a mask, and of the parameters and buffers of ``model`` with the mask applied.

    Args:
        model: any module; it comes back as it was.
        mask: mask over weights of the model.

    Raises:
        InputError: the mask does not fit the model.

    >>> import torch
    >>> model = nn.Linear(2, 1)
    >>> mask = Mask(weight=torch.tensor([[True, False]]))
    >>> before = network_digest(model, mask)
    >>> mask.apply_(model)
    >>> network_digest(model, mask) == before
    True
    """
    select_weights(model, mask)
    with pruned(model, mask):
        return digest({"mask": {name: mask[name].cpu() for name in mask}, "state": dict(model.state_dict())})


def _percent(fraction: float) -> str:
    """A fraction as percent, rounded down to hundredths, so that no claim becomes larger."""
    return f"{math.floor(fraction * 10_000 + 1e-6) / 100:g} %"
