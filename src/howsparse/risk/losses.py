"""Losses: functions of a model and a batch that return one number."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.risk.loss_protocols import Loss, SplitLoss
from howsparse.risk.pretrained import check_single_label, reads_labels, shifts_labels
from howsparse.risk.reading import fitting_cross_entropy, logits_of, pair_of

__all__ = [
    "IGNORED",
    "Criterion",
    "CrossEntropy",
    "Loss",
    "SplitLoss",
    "as_loss",
    "cross_entropy",
]

IGNORED = -100  # torch's and Hugging Face's label for a position that does not count


class CrossEntropy:
    """Mean cross-entropy over all predictions: one for each image, token or pixel whose label is not -100.

    A batch is an ``(input, target)`` pair, or a mapping as for Hugging Face models: ``labels`` is the target, and the
    other entries are the model's keyword arguments. For a pair, dimension 1 of the logits is the class. For a mapping,
    the last dimension is the class, and the output has only the logits of labels that count. It is ``(predictions,
    classes)``, so positions without a label cost no memory, also with a large vocabulary.

    Batches count in proportion to their predictions, so the mean over a text is a mean over its tokens.

    Args:
        shift: whether the logits at a position predict the label at the next one, as in a causal language model. If
            the model is one of Hugging Face's, `as_loss` decides it.

    >>> import torch
    >>> cross_entropy(nn.Identity(), (torch.zeros(1, 2), torch.tensor([0])))
    tensor(0.6931)
    """

    shift = False

    def __init__(self, shift: bool = False) -> None:
        if shift:  # without it, the loss has no attributes and is described as in earlier records
            self.shift = True

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        loss = self.for_model(model)
        return loss.of_output(loss.output(model, batch), batch)

    def for_model(self, model: nn.Module) -> "CrossEntropy":
        """The same loss with the ``shift`` that a Hugging Face model needs.

        Args:
            model: any module.

        Returns:
            A loss for this model.
        """
        return self if self.shift or not shifts_labels(model) else CrossEntropy(shift=True)

    def output(self, model: nn.Module, batch: Any) -> Tensor:
        """Logits of all predictions: of a pair as the model returns them, of a mapping ``(predictions, classes)``.

        Args:
            model: any module.
            batch: a pair or a mapping.

        Returns:
            The logits, in float32 if the model's have half precision.

        Raises:
            InputError: the output has no logits, or they do not fit the labels.
        """
        if not isinstance(batch, Mapping):
            return logits_of(model(pair_of(batch)[0]))
        check_single_label(model)
        given = batch if reads_labels(model) else {key: value for key, value in batch.items() if key != "labels"}
        logits = logits_of(model(**given))
        if self.shift:
            logits = logits[:, :-1]
        labels = self._labels(batch)
        if labels.is_floating_point():  # probabilities of the classes
            return logits
        if logits.shape[:-1] != labels.shape and logits.shape[:1] + logits.shape[2:] == labels.shape:
            logits = logits.movedim(1, -1)  # classes first, as in segmentation
        if logits.shape[:-1] != labels.shape:
            raise InputError(
                f"logits of shape {tuple(logits.shape)} do not fit labels of shape {tuple(labels.shape)};"
                " pass a loss(model, batch) for this model"
            )
        return logits[labels != IGNORED]

    def of_output(self, output: Tensor, batch: Any) -> Tensor:
        """Mean cross-entropy of the predictions; 0 if no label counts.

        Args:
            output: what `output` returned for the batch.
            batch: a pair or a mapping.

        Returns:
            A scalar tensor.
        """
        target = self.targets(batch)
        if isinstance(batch, Mapping) and not len(target):
            return output.sum()
        return fitting_cross_entropy(output, target)

    def count(self, batch: Any) -> int:
        """Number of predictions whose labels count.

        Args:
            batch: a pair or a mapping.

        Returns:
            A number of predictions.
        """
        return int(self.counted(batch))

    def counted(self, batch: Any) -> Tensor:
        """`count` as a tensor on the labels' device, for callers that need not wait for it, ``()``.

        Args:
            batch: a pair or a mapping.

        Returns:
            The same number.
        """
        target = self.targets(batch)
        return torch.tensor(len(target)) if target.is_floating_point() else (target != IGNORED).sum()

    def targets(self, batch: Any) -> Tensor:
        """Labels of the predictions; of a mapping, only those that count, ``(predictions,)``.

        Args:
            batch: a pair or a mapping.

        Returns:
            The labels.

        Raises:
            InputError: the batch is neither a pair nor a mapping with labels.
        """
        if not isinstance(batch, Mapping):
            return pair_of(batch)[1]
        labels = self._labels(batch)
        return labels if labels.is_floating_point() else labels[labels != IGNORED]

    def examples(self, batch: Any) -> Tensor:
        """The example of each prediction, as a position in the batch; in the order of `each` and `correct`.

        Args:
            batch: a pair or a mapping.

        Returns:
            The positions, ``(predictions,)``.

        Raises:
            InputError: the batch is neither a pair nor a mapping with labels.
        """
        labels = self._labels(batch) if isinstance(batch, Mapping) else pair_of(batch)[1]
        if labels.is_floating_point():
            return torch.arange(len(labels), device=labels.device)
        return (labels != IGNORED).nonzero()[:, 0]

    def each(self, output: Tensor, batch: Any) -> Tensor:
        """Loss of each prediction whose label counts, ``(predictions,)``.

        Args:
            output: what `output` returned for the batch.
            batch: a pair or a mapping.

        Returns:
            The losses, in the order of the predictions.
        """
        target = self.targets(batch)
        losses = fitting_cross_entropy(output, target, reduction="none")
        return losses.flatten() if target.is_floating_point() else losses[target != IGNORED]

    def score(self, output: Tensor, batch: Any) -> tuple[int, int]:
        """Number of correct predictions, and number of all predictions.

        Args:
            output: what `output` returned for the batch.
            batch: a pair or a mapping.

        Returns:
            The two numbers.
        """
        correct = self.correct(output, batch)
        return int(correct.sum()), correct.numel()

    def correct(self, output: Tensor, batch: Any) -> Tensor:
        """Which predictions are correct, as a boolean tensor on the device, ``(predictions,)``.

        Args:
            output: what `output` returned for the batch.
            batch: a pair or a mapping.

        Returns:
            True for each correct prediction.
        """
        return self.in_top(1, output, batch)

    def in_top(self, k: int, output: Tensor, batch: Any) -> Tensor:
        """Whether the label is one of the ``k`` most probable classes, for each prediction, ``(predictions,)``.

        Args:
            k: number of classes.
            output: what `output` returned for the batch.
            batch: a pair or a mapping.

        Returns:
            True for each prediction that is right in this sense.
        """
        target = self.targets(batch)
        classes = target.argmax(1) if target.is_floating_point() else target
        if k == 1:
            hits = output.argmax(1) == classes
        else:
            best = output.topk(min(k, output.shape[1]), dim=1).indices
            hits = (best == classes.unsqueeze(1)).any(1)
        return hits[classes != IGNORED]

    def _labels(self, batch: Mapping[str, Tensor]) -> Tensor:
        if "labels" not in batch:
            raise InputError(
                f"a batch has no 'labels' but {', '.join(map(str, batch))}; add them (for a causal language model a"
                " copy of input_ids, with -100 at padding), or pass a loss(model, batch)"
            )
        labels = batch["labels"]
        return labels[:, 1:] if self.shift else labels


cross_entropy = CrossEntropy()


class Criterion:
    """A loss of torch, such as ``nn.CrossEntropyLoss()``, for ``(input, target)`` pairs or dict batches.

    Args:
        criterion: a module that computes the mean loss of an output and a target.

    >>> import torch
    >>> Criterion(nn.MSELoss())(nn.Identity(), (torch.ones(2), torch.zeros(2)))
    tensor(1.)
    """

    def __init__(self, criterion: nn.Module) -> None:
        self.criterion = criterion

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        return self.of_output(self.output(model, batch), batch)

    def output(self, model: nn.Module, batch: Any) -> Tensor:
        if isinstance(batch, Mapping):
            return logits_of(model(**{key: value for key, value in batch.items() if key != "labels"}))
        return logits_of(model(pair_of(batch)[0]))

    def of_output(self, output: Tensor, batch: Any) -> Tensor:
        target = cross_entropy._labels(batch) if isinstance(batch, Mapping) else pair_of(batch)[1]
        value: Tensor = self.criterion(output, target)
        return value


def as_loss(loss: "Loss | nn.Module", model: nn.Module | None = None) -> Loss:
    """A loss as this package uses it: a module of torch, such as ``nn.CrossEntropyLoss()``, becomes a `Criterion`.

    Args:
        loss: ``loss(model, batch)``, or a loss of ``torch.nn``, which is called with an output and a target.
        model: the model of the loss; a causal language model of Hugging Face shifts the labels of `CrossEntropy`.

    >>> as_loss(nn.CrossEntropyLoss()) is cross_entropy
    True
    """
    if type(loss) is nn.CrossEntropyLoss and _is_plain(loss):
        loss = cross_entropy
    if isinstance(loss, CrossEntropy):
        return loss if model is None else loss.for_model(model)
    if isinstance(loss, nn.Module) and type(loss).__module__.startswith("torch.nn"):
        return Criterion(loss)
    return loss


def _is_plain(loss: nn.CrossEntropyLoss) -> bool:
    """Whether it has torch's defaults. It then equals `cross_entropy`, which can also score."""
    return (
        loss.weight is None and loss.ignore_index == IGNORED and loss.label_smoothing == 0 and loss.reduction == "mean"
    )
