"""Processes of a pool that end when the one which started them does."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import parent_process

__all__ = ["end_with_parent"]


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
