"""What a library leaves as it found it: random states, threads, defaults, log levels, warnings."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch


@contextmanager
def as_found(threads: int = 0, device: str = "cpu") -> Iterator[None]:
    """A context for work that anybody may ask for, in a process of any state.

    Within, `threads` are at work (0: as many as before), anything may be seeded, and torch computes
    by its own defaults, whatever the caller has chosen. Afterwards the process is as it was, also
    when an error or an interrupt ends the work: the random states of torch, NumPy and Python, the
    number of threads, torch's defaults, the log level of Lightning Fabric, and which warnings are
    shown, and how.
    """
    if device.startswith("cuda"):
        torch.cuda.init()  # else its random states could not be told, and put back
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - others use it
    fabric = logging.getLogger("lightning_fabric")
    level = fabric.level
    with torch.random.fork_rng(cards()), warnings.catch_warnings(), working(threads):
        how = warnings.formatwarning
        try:
            fabric.setLevel(logging.WARNING)  # below, it tells of bf16 at each run
            with torch_defaults(device):
                yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            warnings.formatwarning = how
            fabric.setLevel(level)


@contextmanager
def working(threads: int) -> Iterator[None]:
    """Within, torch has this many threads (0: as many as before); afterwards as many as before."""
    before = torch.get_num_threads()
    try:
        if threads:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def torch_defaults(device: str = "cpu") -> Iterator[None]:
    """Within, torch is in its own defaults, so that a run's numbers are of its recipe alone: new
    tensors are float32 on the CPU, gradients are kept, products of float32 are taken in full, and
    nothing is cast unasked. Casts of weights are not cached: a cache ends with the outermost
    context, and this one holds a whole run."""
    dtype, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    kind, elsewhere = torch.device(device).type, torch.get_default_device().type != "cpu"
    try:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(kind, enabled=False, cache_enabled=False),
            torch.device("cpu") if elsewhere else nullcontext(),
        ):
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_float32_matmul_precision(precision)


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
