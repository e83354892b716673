"""Forward passes that stop at layers, so that many passes go through a network together.

An algorithm that changes a network layer by layer needs the inputs of each layer after the layers before it have
changed. One forward pass for each layer would compute the first layers again and again. Here the forward pass of each
batch runs in a thread of its own, and stops at each layer of interest. So all layers together take one forward pass,
for any module. Only one thread runs at a time, so the result does not depend on timing.
"""

import contextvars
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.matmul import fast_matmul
from howsparse.risk.losses import Loss, SplitLoss, as_loss
from howsparse.risk.modes import attributes_kept, device_of, evaluation_mode

__all__ = ["Pass", "Stop", "call", "calls", "first_argument", "passes", "stopping", "undisturbed"]


@dataclass(frozen=True)
class Stop:
    """A forward pass that waits after the call of a layer.

    Attributes:
        layer: the layer.
        input: its first argument.
        output: what it returned.
    """

    layer: nn.Module
    input: Tensor
    output: Tensor


class _Ended(BaseException):
    """Ends a thread when its pass is not needed any more. It is no `Exception`, so that no model catches it."""


class Pass:
    """A forward pass in a thread of its own.

    Args:
        run: calls the model.

    >>> layer = nn.ReLU()
    >>> with stopping([layer], again=False):
    ...     one = Pass(lambda: layer(torch.tensor([-1.0, 1.0])))
    ...     stop = one.advance()
    ...     last = one.advance()
    >>> stop.output.tolist(), last
    ([0.0, 1.0], None)
    """

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run
        self._go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._stop: Stop | None = None
        self._error: BaseException | None = None
        self._over = self._ended = False
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=lambda: context.run(self._work), daemon=True)
        self._thread.start()

    def advance(self) -> Stop | None:
        """Let the pass run until it stops at the next layer. Return None at its end; raise what the model raises."""
        if not self._over:
            self._stop = None
            self._go.release()
            self._waits.acquire()
        if self._error is not None:
            raise self._error
        return self._stop

    def wait(self, stop: Stop) -> None:
        """Stop here until `advance` is called. The thread of the pass calls this."""
        self._stop = stop
        del stop
        self._waits.release()
        self._go.acquire()
        if self._ended:
            raise _Ended

    def end(self) -> None:
        """End the pass where it is."""
        self._ended = True
        self._go.release()
        self._thread.join()

    def _work(self) -> None:
        _current.set(self)
        self._go.acquire()
        try:
            if not self._ended:
                with torch.no_grad():
                    self._run()
        except _Ended:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._over = True
            self._waits.release()


_current: contextvars.ContextVar[Pass] = contextvars.ContextVar("the pass of this thread")


@contextmanager
def passes(runs: Iterable[Callable[[], object]]) -> Iterator[list[Pass]]:
    """Passes that have not started yet. At the end of the context, unfinished passes are ended.

    Args:
        runs: a function for each pass; it calls the model.

    >>> with passes([lambda: None]) as (only,):
    ...     print(only.advance())
    None
    """
    with ExitStack() as stack:
        made = []
        for run in runs:
            made.append(Pass(run))
            stack.callback(made[-1].end)
        yield made


@contextmanager
def stopping(layers: Sequence[nn.Module], again: bool) -> Iterator[None]:
    """In this context, each pass stops after each call of one of the layers.

    Args:
        layers: the layers.
        again: whether the layer is computed again when the pass goes on, because its weights may have changed.
    """

    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        _current.get().wait(Stop(layer, first_argument(args, kwargs), output))
        changed: Tensor | None = layer.forward(*args, **kwargs) if again else None
        return changed

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The first argument of a call, given by position or by name.

    Args:
        args: arguments by position.
        kwargs: arguments by name.
    """
    first: Tensor = args[0] if args else next(iter(kwargs.values()))
    return first


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, in which every layer is called. At the end all but the weights is restored.

    Args:
        model: any module; its modes, buffers and plain attributes are restored, and torch's random state.
    """
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)  # the fused kernel does not call the layers
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(attributes_kept(model))
        stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
        stack.enter_context(fast_matmul(device_of(model)))
        stack.enter_context(torch.no_grad())
        yield


def calls(model: nn.Module, batches: Iterable[Any], loss: Loss) -> list[Callable[[], object]]:
    """A function for each batch, which calls the model on it.

    Args:
        model: any module.
        batches: batches on the model's device.
        loss: ``loss(model, batch)``.
    """
    return [partial(call, model, batch, loss) for batch in batches]


def call(model: nn.Module, batch: Any, loss: Loss) -> None:
    """Call a model on a batch, as a loss does it. A loss that has ``output`` needs no labels.

    Args:
        model: any module.
        batch: a batch on the model's device.
        loss: ``loss(model, batch)``.
    """
    loss = as_loss(loss, model)
    if isinstance(loss, SplitLoss):
        loss.output(model, batch)
    else:
        loss(model, batch)
