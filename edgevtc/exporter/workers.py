"""Processes that trace for an export, and end when it does. Imports no torch: they need this before that."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process

from edgevtc.extras import require

__all__ = ["interrupts_held", "start_worker"]


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C comes when this ends; and to processes that are started meanwhile, when they let it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker() -> None:
    """Load torch, on one thread, in a process that Ctrl-C ends without a word: it reaches all those of a terminal.

    The parent's end, whatever that is, ends it too: else it would wait for work for ever.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of a job in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=end_with_parent, daemon=True).start()
    require("torch", "tracing a compressor").set_num_threads(1)


def end_with_parent() -> None:
    """Wait for the parent's end, and end with it."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
