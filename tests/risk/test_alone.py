"""Threads that share a model: each gets the answer that it gets alone, and the model comes back as it was."""

import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import howsparse
from howsparse.risk import alone as module
from howsparse.risk.alone import alone, alone_with
from networks_for_tests import mlp_case

LIMIT: dict[str, Any] = {"tolerance": 0.05, "max_products": 32, "progress": False}


def answers(batches: Any) -> list[Callable[[nn.Module], Any]]:
    """Functions that change the model while they run."""
    return [
        lambda model: howsparse.measure(model, batches, max_rise=0.2).sparsity,
        lambda model: howsparse.measure(model, batches, max_rise=0.2, order="random", seed=3).sparsity,
        lambda model: howsparse.pruning_limit(model, batches, **LIMIT).bracket,
        lambda model: howsparse.predict(model, batches, tolerance=0.05, progress=False).sparsity,
        lambda model: howsparse.outcomes(model, batches).losses.tolist(),
        lambda model: howsparse.magnitude_mask(model, 0.5)["0.weight"].tolist(),
        lambda model: howsparse.limit_cost(model, batches).products,
    ]


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_threads_that_share_a_model_get_the_answers_of_one_thread() -> None:
    model, batches = mlp_case(1)
    before, wanted = state(model), [answer(model) for answer in answers(batches)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda answer: answer(model), answers(batches) * 2))
    assert found == wanted * 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_one_thread_waits_for_the_other_and_enters_again() -> None:
    model, order = nn.Linear(1, 1), list[str]()
    inside = threading.Event()

    def first() -> None:
        with alone_with(model), alone_with(model):
            inside.set()
            time.sleep(0.05)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait()
    alone(lambda model: order.append("second"))(model)
    thread.join()
    assert order == ["first", "second"]


def test_threads_with_models_of_their_own_do_not_wait() -> None:
    one, other = nn.Linear(1, 1), nn.Linear(1, 1)
    meeting = threading.Barrier(2, timeout=10)

    def meet(model: nn.Module) -> None:
        with alone_with(model):
            meeting.wait()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(meet, (one, other)))


def test_a_lock_goes_with_its_model() -> None:
    model = nn.Linear(1, 1)
    with alone_with(model):
        key = id(model)
        assert key in module._locks
    del model
    gc.collect()
    assert key not in module._locks


def test_the_lock_is_free_after_an_error() -> None:
    model, batches = mlp_case()
    with pytest.raises(howsparse.InputError):
        howsparse.measure(model, batches, max_drop=-1.0)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(howsparse.magnitude_mask, model, 0.5).result(10).sparsity == pytest.approx(0.5, abs=0.02)
