"""The end that SIGTERM asks for, as schedulers send it: within a second, and nothing lost.

A run saves where it stands after the step that it is at. Whatever else a command does ends at once,
as by Ctrl-C, and what it had finished is stored. What takes longer than SECONDS, as an evaluation,
is left as a kill leaves it: the same command goes on from the last save.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 0.7
CODE = 128 + signal.SIGTERM
ASKED = threading.Event()
SAVING: list[bool] = []
"""One entry for each run that will look at `asked` after its step."""


class Terminated(KeyboardInterrupt):
    """SIGTERM has come."""


def code_of(interrupt: KeyboardInterrupt) -> int:
    """What a process that is interrupted so leaves with."""
    return CODE if isinstance(interrupt, Terminated) else 128 + signal.SIGINT


def listen(worker: bool = False) -> None:
    """From now on, SIGTERM ends this process so; a worker that is idle just ends."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    threading.Thread(target=watch, args=(read, worker), daemon=True).start()
    signal.signal(signal.SIGTERM, heard_by_worker if worker else heard)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)  # told even within a long product


def heard(*_: object) -> None:
    """End at once, or leave it to the run that is at work."""
    ASKED.set()
    if not SAVING:
        raise Terminated


def heard_by_worker(*_: object) -> None:
    """End at once, unless a run is at work: whoever sent it knows, and says so."""
    ASKED.set()
    if not SAVING:
        os._exit(CODE)


def watch(pipe: int, worker: bool) -> None:
    """End the process where nobody else does in time."""
    while os.read(pipe, 1) != bytes([signal.SIGTERM]):
        pass
    threading.Event().wait(SECONDS)
    if not worker:
        print("nearkin: stopped; the same command goes on from here", file=sys.stderr, flush=True)
    os._exit(CODE)


@contextmanager
def saving() -> Iterator[None]:
    """Within it SIGTERM raises nothing: whoever works calls `asked` often, saves, and raises."""
    SAVING.append(True)
    try:
        yield
    finally:
        SAVING.pop()


def asked() -> bool:
    """Whether SIGTERM has come."""
    return ASKED.is_set()
