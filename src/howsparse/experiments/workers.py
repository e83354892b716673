"""Workers that end with the process that started them, however that ends."""

import functools
import os
import threading
import time

__all__ = ["end_with"]

_EVERY = 0.5  # seconds


@functools.cache
def end_with(parent: int) -> None:
    """End this process soon after its parent has ended, also if that was killed. A second call does nothing.

    A worker of joblib notices only between two jobs, or after minutes, that nobody waits for it any more. It calls this
    when it starts, before it waits for its first job: its parent may be killed before there is one.

    Args:
        parent: process id of the process that started this one.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:  # a process whose parent has ended gets another one
        time.sleep(_EVERY)
    os._exit(1)
