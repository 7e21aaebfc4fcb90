"""Fresh processes of this machine: how they start, and that they end with the one that did it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext

from nearkin import registry

IMPORTED = ["nearkin.runs.engine", "torch._dynamo"]
"""What every process that trains imports: some 5 s of processor time."""


def fresh() -> ForkServerContext | SpawnContext:
    """What starts processes that know nothing of this one but what they are told.

    On Linux each is a copy of one process that has imported IMPORTED and computed nothing, so that
    they start in a fraction of a second and share the memory of what is imported. Elsewhere each
    imports anew, since copies are not safe there.
    """
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


Told = tuple[Mapping[str, str], Mapping[str, registry.Registry]]
"""What a fresh process is told of this one: its environment and its registries."""


def told() -> Told:
    """What a process that is started now is told."""
    return dict(os.environ), registry.entries()


def begin(told: Told) -> None:
    """In a fresh process: be like the one that started it, and end when it does, however that
    ends. Ctrl-C is for that one alone to hear."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    environment, entries = told
    os.environ.clear()
    os.environ.update(environment)
    registry.adopt(entries)
    parent = parent_process()
    assert parent, "only a process that was started by another has one to end with"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def deaf() -> Iterator[None]:
    """Processes that are started within it inherit that they do not hear Ctrl-C, and neither does
    this one until it is left."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
