"""What a run was done on, and how much memory it took."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import resource
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from nearkin.runs.row import Machine
from nearkin.tensors import usable as usable

PACKAGES = ("nearkin", "torch", "torchvision", "timm", "pytorch-metric-learning", "faiss-cpu")


@lru_cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    commit = revision()
    return found | ({"revision": commit} if commit else {})


@lru_cache
def revision() -> str:
    """The commit of this checkout, with "-dirty" where files differ; "" of an installed copy."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return ""

    def said(*words: str) -> str:  # without its lock, which `describe --dirty` takes all the same
        git = ["git", "--no-optional-locks", "-C", str(root), *words]
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = said("describe", "--always", "--exclude=*")
        changed = said("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}-dirty" if changed else commit


def machine(device: torch.device) -> Machine:
    """Processor, cores in use, graphics card and system."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    system = f"{platform.system()} {platform.machine()}"
    threads = torch.get_num_threads()
    return Machine(processor(), threads, gpu, system, (threads,))


@lru_cache
def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Peak:
    """The most memory that was in use since this was made, beyond what was then: the card's, or the
    process's.

    Where the system cannot reset its high-water mark, the process's peak since its start.
    """

    def __init__(self, device: torch.device, exact: bool = True):
        """exact: look for garbage first, so that none of it counts, in a quarter of a second; a
        trial, whose memory nobody reads, takes as long to do the rest."""
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        if exact:
            gc.collect()
        hand_back_freed_memory()  # else what a run before this one took would not count
        with contextlib.suppress(OSError):  # not Linux, or not allowed
            Path("/proc/self/clear_refs").write_text("5")
        self.before = 0
        self.before = self.megabytes()

    def megabytes(self) -> int:
        if self.device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self.device) / 2**20) - self.before
        status = Path("/proc/self/status")
        if status.exists():
            line = next(r for r in status.read_text().splitlines() if r.startswith("VmHWM"))
            return round(int(line.split()[1]) / 1024) - self.before
        unit = 1 if sys.platform == "darwin" else 1024
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)


def hand_back_freed_memory() -> None:
    """Have the C library give what is freed to the system, where it is glibc."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@lru_cache
def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next step, where it is glibc.

    By default large tensors go back to the system and come again as fresh pages, each cleared
    first: a fifth of the time of a step of the n-tuple report's network.
    """
    trim_threshold, map_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(map_threshold, 2**30)
        library.mallopt(trim_threshold, 2**30)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
