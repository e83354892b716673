"""What products leave in memory, and what importing the package costs."""

import compileall
import gc
import json
import statistics
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import torch
from torch import nn

import howsparse
from howsparse.risk import GGN, EmpiricalRisk, Hessian

__all__ = ["growth", "growth_of_products", "import_seconds"]

_MOST_BYTES, _MOST_OBJECTS = 50_000, 100  # a tensor that each product leaves would take ten times as much
_MOST_SECONDS = 0.3  # of the processor, beyond the import of torch
_TIMED = """
import json, time, torch
began = time.process_time()
import howsparse
imported = time.process_time()
for name in howsparse.__all__:
    getattr(howsparse, name)
print(json.dumps([imported - began, time.process_time() - began]))
"""


def growth(matrix: type[Hessian | GGN], memory: int | None, products: int = 1000) -> tuple[int, int]:
    """Products of a tiny network, and what they leave.

    Args:
        matrix: whose products.
        memory: bytes for graphs between products; None for what the machine allows.
        products: how many, after 100 that are not counted.

    Returns:
        Bytes of Python objects, and the number of objects; a tensor that is kept is one of them.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2))
        batch = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    product = matrix(EmpiricalRisk(model, [batch]), memory)
    vector = torch.ones(product.shape[0])
    tracemalloc.start()
    try:
        for _ in range(100):
            product @ vector
        size, objects = _held()
        for _ in range(products):
            product @ vector
        size_after, objects_after = _held()
    finally:
        tracemalloc.stop()
    return size_after - size, objects_after - objects


def growth_of_products(trials: int) -> dict[str, Any]:
    """1,000 products with each matrix, with and without kept graphs; the largest growth."""
    found = [growth(matrix, memory) for matrix in (Hessian, GGN) for memory in (0, None)]
    wrong = sum(size > _MOST_BYTES or objects > _MOST_OBJECTS for size, objects in found)
    most = {"bytes": max(size for size, _ in found), "objects": max(objects for _, objects in found)}
    return {"tried": 1000 * len(found), "wrong": wrong, **most}


def import_seconds(trials: int) -> dict[str, Any]:
    """Processor time of ``import howsparse`` after ``import torch``, each time in a new process, and of every name."""
    # An installed package has compiled files; so has this one, also where Python is told to write none.
    compileall.compile_dir(Path(howsparse.__file__).parent, quiet=1)
    found = [json.loads(subprocess.check_output([sys.executable, "-c", _TIMED])) for _ in range(trials)]
    imports, names = zip(*found, strict=True)
    wrong = sum(seconds > _MOST_SECONDS for seconds in imports)
    of_names = {"names": statistics.median(names), "names_most": max(names)}
    return {"tried": trials, "wrong": wrong, "seconds": statistics.median(imports), "most": max(imports), **of_names}


def _held() -> tuple[int, int]:
    gc.collect()
    return tracemalloc.get_traced_memory()[0], len(gc.get_objects())
