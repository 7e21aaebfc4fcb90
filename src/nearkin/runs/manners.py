"""What a library leaves as it found it: random states, threads, log levels, warnings."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def as_found(threads: int = 0, device: str = "cpu") -> Iterator[None]:
    """Within, anything may be seeded and `threads` are at work (0: as many as before); afterwards
    the process is as it was: the random states of torch, NumPy and Python, the number of threads,
    the log level of Lightning Fabric, and how warnings are shown."""
    if device.startswith("cuda"):
        torch.cuda.init()  # else its random states could not be told, and put back
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - others use it
    before, shown = torch.get_num_threads(), (warnings.formatwarning, warnings.showwarning)
    fabric = logging.getLogger("lightning_fabric")
    level = fabric.level
    with torch.random.fork_rng(cards()):
        try:
            fabric.setLevel(logging.WARNING)  # below, it tells of bf16 at each run
            if threads:
                torch.set_num_threads(threads)
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            torch.set_num_threads(before)
            warnings.formatwarning, warnings.showwarning = shown
            fabric.setLevel(level)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within, torch draws its random numbers from this seed; afterwards it goes on as before."""
    with torch.random.fork_rng(cards()):
        # torch.manual_seed would seed, some day, a card too that nobody has used yet
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        yield


def cards() -> range:
    """The graphics cards, each with a random state of its own; none before they are used."""
    return range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
