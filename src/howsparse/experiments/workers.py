"""Workers that end soon after the process that started them, even if that process was killed."""

import functools
import os
import threading
import time

__all__ = ["end_with"]

_EVERY = 0.5  # seconds


@functools.cache
def end_with(parent: int) -> None:
    """End this process soon after its parent has ended, even if the parent was killed. A second call does nothing.

    Without this, a worker of joblib goes on until its job ends, or until it waited some minutes for one. A worker calls
    this when it starts, before it waits for its first job: its parent may be killed before there is one.

    Args:
        parent: process id of the process that started this one.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:  # a process whose parent has ended gets another one
        time.sleep(_EVERY)
    os._exit(1)
