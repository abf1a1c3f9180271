"""Processes that trace for an export, and end when it does. Imports no torch: they need this before that."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from edgevtc.extras import require
from edgevtc.workers import end_with_parent

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
    """Load torch, on one thread, in a process that ends with its parent."""
    end_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    require("torch", "tracing a compressor").set_num_threads(1)
