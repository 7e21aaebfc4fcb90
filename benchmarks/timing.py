"""How a benchmark measures, and what it hands over: plain rows.

A topic is a file benchmarks/TOPIC.py with

    TITLE: str                                    the heading of its section
    rows(quick: bool) -> Iterable[Row]            measures; quick: small sizes, to see that it runs

and a line in `TOPICS` of benchmarks/__main__.py. Times of two ways are taken in turns within one
process, so that a busy machine slows both; memory is that of a fresh process for each case.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Row:
    """One comparison: seconds and peak bytes of ours beside a peer's.

    what: the case, such as "neighbours, k = 16, 30,000 x 512".
    ours, theirs: medians, in seconds; theirs is None where no peer can do it.
    peer: whose time theirs is.
    goal: the largest ours / theirs that we want, or None where nothing was promised.
    budget: the most seconds that we want.
    memory, peer_memory: peak resident bytes of a process that does this alone.
    limit: the largest memory that we want.
    note: what a reader must know, such as accuracies that were equal.
    """

    what: str
    ours: float
    peer: str = ""
    theirs: float | None = None
    goal: float | None = None
    memory: int | None = None
    peer_memory: int | None = None
    limit: int | None = None
    note: str = ""
    budget: float | None = None

    @property
    def ratio(self) -> float | None:
        """ours / theirs: below 1 we are faster."""
        return None if self.theirs is None else self.ours / self.theirs

    @property
    def reached(self) -> bool | None:
        """Whether every goal of this row is met; None where it has none."""
        checks = []
        if self.goal is not None and self.ratio is not None:
            checks.append(self.ratio <= self.goal)
        if self.budget is not None:
            checks.append(self.ours <= self.budget)
        if self.limit is not None and self.memory is not None:
            checks.append(self.memory <= self.limit)
        return all(checks) if checks else None


def seconds(
    functions: dict[str, Callable[[], object]], repeats: int = 5, warm_up: bool = True
) -> dict[str, float]:
    """Median time of each function, all of them called in turns `repeats` times."""
    if warm_up:
        for function in functions.values():
            function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def peak_memory(function: Callable[..., object], *arguments: Any) -> int:
    """Peak resident bytes of a fresh process that calls function(*arguments).

    The function is found by name (top level of a module) and makes its own data, whose memory
    counts, as does that of the interpreter and its libraries.
    """
    return in_a_process(_peak_of, function, *arguments)


def _peak_of(function: Callable[..., object], *arguments: Any) -> int:
    function(*arguments)
    return peak_bytes()


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What function(*arguments) gives in a fresh process, which finds it by name."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise MemoryError(f"{function.__name__}{arguments} ended without an answer") from None
    finally:
        process.join()


def _answer(sender: Any, function: Callable[..., Any], arguments: tuple) -> None:
    sender.send(function(*arguments))


def peak_bytes() -> int:
    """The most that this process had resident so far. Linux: VmHWM, which, unlike ru_maxrss, a
    large parent process does not raise."""
    return of_status("VmHWM") or most_resident()


def forget_peak() -> None:
    """Let `peak_bytes` begin anew, where the system can: Linux."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident_bytes() -> int:
    """What this process has resident now; on other systems than Linux the most so far."""
    return of_status("VmRSS") or most_resident()


def of_status(name: str) -> int:
    """Bytes of a line of Linux's /proc/self/status; 0 on other systems."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(s for s in status.read_text().splitlines() if s.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def most_resident() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
