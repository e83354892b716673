"""A context in which the libraries of Hugging Face print nothing."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]


@contextmanager
def quiet() -> Iterator[None]:
    """Turn off messages and progress bars of transformers and datasets, and Python's warnings; restore them at the end.

    Important messages, such as those about missing weights, are checked by howsparse and raised as errors instead.

    Raises:
        ModuleNotFoundError: transformers is not installed.

    >>> with quiet():
    ...     pass
    """
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tables = sys.modules.get("datasets")
    table_bars = tables is not None and not tables.are_progress_bars_disabled()
    if tables is not None:
        tables.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if tables is not None and table_bars:
            tables.enable_progress_bars()
