"""Memory that a recipe, or a stranger's file, may ask for: refused before it is taken."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

SHARE = 0.25
"""Of the memory that is free, what a network may take: its gradients, and an optimiser's means, are
as large again."""

SPARE = 2**29
"""Bytes that the building of a stranger's network may take beyond four times its weights."""


class TooLarge(ValueError):
    """What would take more memory than it may."""


class Budget(TorchDispatchMode):
    """Tensors that are made within it may have so many bytes in all.

    >>> with Budget(1000, "a layer"):
    ...     torch.nn.Linear(10, 2000)
    Traceback (most recent call last):
    nearkin.budget.TooLarge: a layer would take 0.1 MB of memory or more, and may take 0.0 MB
    """

    def __init__(self, most: float, what: str):
        super().__init__()
        self.most, self.what, self.taken = most, what, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        sizes = args[0] if args else given.get("size")
        if isinstance(sizes, list | tuple) and all(type(size) is int for size in sizes):
            kind = given.get("dtype") or torch.get_default_dtype()
            self.taken += prod(sizes) * kind.itemsize
            if self.taken > self.most:
                raise TooLarge(
                    f"{self.what} would take {self.taken / 1e6:,.1f} MB of memory or more, "
                    f"and may take {self.most / 1e6:,.1f} MB"
                )
        return func(*args, **given)


def to_train(what: str) -> Budget:
    """What a network that is to be trained may take of the memory that is free now."""
    return Budget(SHARE * free_memory(), what)


def memory() -> int:
    """Bytes of the machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # where nobody tells, what a laptop has
        return 16 * 2**30


def free_memory() -> int:
    """Bytes of memory that could be taken now, as far as the system tells; else all of it."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration, ValueError):
        return memory()
