"""Processes of a pool that end when the one which started them does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

__all__ = ["end_with_parent", "pool_of"]


@contextmanager
def pool_of(jobs: int, start: Callable[..., None], *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes; what they are at when this ends is waited for.

    Args:
        jobs: Processes.
        start: What each calls first, :func:`end_with_parent` in it, with these arguments.
    """
    # Not forked: the threads of torch and of the runtime do not survive that.
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), start, arguments)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """Let this process end with its parent, however that ends, and without a word at Ctrl-C.

    That reaches every process of a terminal. As an exception it would end up in a task's result, or in a process that
    the others and the parent then wait for.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of a job in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=wait_for_parent, daemon=True).start()


def wait_for_parent() -> None:
    """Wait for the parent's end, and end at once."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
