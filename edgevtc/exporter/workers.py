"""Processes that trace for an export, and end when it does. Imports no torch: they need this before that."""

from __future__ import annotations

import pickle  # noqa: TID251 - of bytes that this process packed
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgevtc.extras import require
from edgevtc.workers import end_with_parent

__all__ = ["interrupts_held", "pack_task", "run_task", "start_worker"]


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


def pack_task(function: Callable[..., object], *arguments: object) -> bytes:
    """Pack a call for :func:`run_task` with its tensors' values.

    A pool would have torch share their memory instead, by a thread of the parent that writes a traceback when a process
    which asks it for some is interrupted.
    """
    return pickle.dumps((function, arguments))


def run_task(task: bytes) -> object:
    """Call what :func:`pack_task` packed."""
    function, arguments = pickle.loads(task)
    return function(*arguments)
