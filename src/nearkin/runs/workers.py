"""Workers of this machine: pieces of work done here, or in processes that this one starts.

A piece of work is a function without arguments whose result can be stored once: it finds what is
stored, and gives None where another process, on whatever machine, is at it. An executor is

    (work: name -> piece, finish: called with each result) -> name -> result, or None

and does each piece at most once; `until_done` asks it again for what is missing.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children
from typing import Protocol, TypeVar

from nearkin import stopping
from nearkin.leases import LONGEST
from nearkin.runs.fresh import Told, begin, deaf, fresh, told
from nearkin.runs.machine import keep_freed_memory

Name = TypeVar("Name")
Done = TypeVar("Done")

FIRST_PAUSE = 0.05  # seconds of waiting for other processes, which double up to LONGEST
TRIES = 3


class Executor(Protocol):
    """What does pieces of work."""

    def __call__(
        self, work: Mapping[Name, Callable[[], Done | None]], finish: Callable[[Done], None]
    ) -> dict[Name, Done | None]: ...


def until_done(
    work: Mapping[Name, Callable[[], Done | None]],
    act: Executor,
    taken: Callable[[Name], bool],
    finish: Callable[[Done], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[Name, Done]:
    """The results of all work. What another process is at is left to it, and looked at again.

    Args:
        taken: whether a living process of any machine is at a piece.

    Raises: OSError, where workers died three times over without any result.
    """
    done: dict[Name, Done] = {}
    free, fruitless, told = dict(work), 0, False
    while len(done) < len(work):
        tried = act(free, finish) if free else {}
        found = {name: one for name, one in tried.items() if one is not None}
        done |= found
        died = bool(free.keys() - tried.keys())
        fruitless = fruitless + 1 if died and not found else 0
        left = {name: piece for name, piece in work.items() if name not in done}
        if fruitless == TRIES:
            first = next(iter(left))
            name = getattr(first, "hash", first)
            raise OSError(f"workers were killed three times over; not done: {name}, ...")
        pause = FIRST_PAUSE
        while left and not (free := {n: piece for n, piece in left.items() if not taken(n)}):
            if not told:
                say(f"{len(left)} are in other processes' hands: waiting for them")
                told = True
            time.sleep(pause)
            pause = min(2 * pause, LONGEST)
    return done


def in_this_process(
    work: Mapping[Name, Callable[[], Done | None]], finish: Callable[[Done], None]
) -> dict[Name, Done | None]:
    """Executor: one piece after the other. From the first one on that another process is at, the
    order is drawn at random, so that several machines do not walk side by side."""
    done: dict[Name, Done | None] = {}
    left, drawn = list(work), False
    while left:
        name = left.pop(0)
        found = done[name] = work[name]()
        if found is not None:
            finish(found)
        elif not drawn:
            random.Random(os.urandom(8)).shuffle(left)
            drawn = True
    return done


def in_processes(
    work: Mapping[Name, Callable[[], Done | None]],
    finish: Callable[[Done], None],
    jobs: int,
) -> dict[Name, Done | None]:
    """Executor: in so many processes of this machine; where one of them is killed, what the others
    have not finished is missing too."""
    done: dict[Name, Done | None] = {}
    workers = min(jobs, len(work))
    with ProcessPoolExecutor(workers, fresh(), begin_worker, (told(),)) as pool:
        try:
            with deaf():  # it is said to this process alone, and ends them below
                futures = {pool.submit(piece): name for name, piece in work.items()}
            for future in as_completed(futures):
                found = done[futures[future]] = future.result()
                if found is not None:
                    finish(found)
        except BrokenProcessPool:
            pass  # a worker was killed: what is stored is stored
        except BaseException as error:
            for worker in active_children() if isinstance(error, KeyboardInterrupt) else ():
                worker.terminate()  # it saves where its run stands, if it can within a second
            pool.shutdown(cancel_futures=True)
            raise
    return done


def begin_worker(told: Told) -> None:
    """In a worker: be as its parent, and save where its run stands when that is asked for."""
    begin(told)
    keep_freed_memory()
    stopping.listen(worker=True)
