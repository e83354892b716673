"""Helpers shared by test modules are importable by name, and fixtures that several of them use."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1]))  # for `benchmarks`


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads cost more than small sizes need, and bits are only promised for the same number of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
