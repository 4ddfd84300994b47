"""Time limits and peak memory of what is done here."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TIME_LIMIT = 60
"""Seconds that one small input may take."""


class Hang(BaseException):
    """A time limit has passed; no Exception, so that nothing on the way takes it for one of its own."""


@contextlib.contextmanager
def time_limit(seconds: int = TIME_LIMIT) -> Iterator[None]:
    """Raise Hang where the body takes longer; in the main thread only."""

    def ring(_number: int, _frame: object) -> None:
        raise Hang(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def measured_apart(work: Callable[[], Any]) -> tuple[Any, float, int]:
    """Do some work in a child process.

    Returns:
        What it returned, its CPU seconds, and the most memory it held above what was there before, bytes.

    Raises:
        RuntimeError: it raised; the message has its traceback.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            answer: tuple[bool, Any] = (True, _measure(work))
        except BaseException:  # told to the parent
            answer = (False, traceback.format_exc())
        with os.fdopen(writing, "wb") as stream:
            pickle.dump(answer, stream)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        raw = stream.read()
    status = os.waitpid(child, 0)[1]
    done, found = pickle.loads(raw) if raw else (False, f"ended with {os.waitstatus_to_exitcode(status)}")
    if not done:
        raise RuntimeError(found)
    return found


def _measure(work: Callable[[], Any]) -> tuple[Any, float, int]:
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # free memory of the parent would be used unseen
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    before, begun = _status("VmRSS"), time.process_time()
    result = work()
    return result, time.process_time() - begun, _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
