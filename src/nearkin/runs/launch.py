"""Several processes of this machine that carry out one run: started, watched, ended together."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from nearkin.runs.fresh import Told, begin, deaf, fresh, told
from nearkin.runs.ranks import Lost, told_of
from nearkin.tensors import usable

MOST = 1024
GRACE = 20.0  # seconds in which the others may end by themselves
LOOPBACK = "127.0.0.1"
GOES_ON = "the same command goes on from the last checkpoint"


def launch(count: int, device: str, act: Callable[..., None], **given: Any) -> None:
    """Call act(**given) in `count` processes of this machine, ranks of one run; all end where one
    does, however that is, and its error is raised here.

    They find each other by the environment, as those that torchrun starts do.

    Raises:
        ValueError: there are not so many GPUs.
        OSError: a process was killed.
    """
    refuse_unfit(count, device)
    store = dist.TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False)  # on a free port
    context = fresh()
    ranks, errors = [], []
    for rank in range(count):
        hears, says = context.Pipe(duplex=False)
        known = (rank, count, store.port, told(), says, act, given)
        ranks.append(context.Process(target=as_rank, args=known))
        errors.append((hears, says))
    with deaf():  # Ctrl-C is said to this process alone, and ends them below
        for process, (_, says) in zip(ranks, errors, strict=True):
            process.start()
            says.close()
    try:
        failed = first_failure(ranks)
    except BaseException:
        end(ranks, 0.0)
        raise
    if failed is not None:
        end(ranks, GRACE)
        tell(failed, ranks, [error_in(hears) for hears, _ in errors])


def error_in(hears: Connection) -> Exception | None:
    """The error that a process has told of; None where it did not come to that."""
    try:
        return hears.recv() if hears.poll() else None
    except EOFError:
        return None


def refuse_unfit(count: int, device: str) -> None:
    """Refuse a number of processes that is none, or more of them than GPUs."""
    if not 1 <= count <= MOST:
        raise ValueError(f"wanted 1 to {MOST} devices, got {count}")
    if usable(device) != "cpu" and count > torch.cuda.device_count():
        raise ValueError(
            f"wanted {count} devices, and torch finds {torch.cuda.device_count()} GPUs: fewer, or "
            "device=cpu"
        )


def first_failure(ranks: Sequence[BaseProcess]) -> int | None:
    """The rank that ends first other than well; None once all have ended well."""
    running = {process.sentinel: rank for rank, process in enumerate(ranks)}
    while running:
        for sentinel in wait(list(running)):
            rank = running.pop(sentinel)  # type: ignore[arg-type]
            ranks[rank].join()
            if ranks[rank].exitcode:
                return rank
    return None


def end(ranks: Sequence[BaseProcess], grace: float) -> None:
    """End processes, by force where they do not end by themselves."""
    for stop in (lambda process: None, BaseProcess.terminate, BaseProcess.kill):
        for process in ranks:
            if process.is_alive():
                stop(process)
        for process in ranks:
            process.join(grace if stop is not BaseProcess.terminate else GRACE / 4)


def tell(failed: int, ranks: Sequence[BaseProcess], errors: Sequence[Exception | None]) -> NoReturn:
    """Raise what has ended a run: the error of a rank, or the signal by which one was killed."""
    for error in errors:
        if error is not None and not isinstance(error, Lost):
            raise error
    code = ranks[failed].exitcode or 0
    if code < 0:
        name = signal.Signals(-code).name if -code in {*signal.Signals} else f"signal {-code}"
        raise OSError(f"process {failed} of {len(ranks)} was ended by {name}; {GOES_ON}")
    raise OSError(f"the {len(ranks)} processes of this run have lost each other; {GOES_ON}")


def as_rank(
    rank: int,
    count: int,
    port: int,
    told: Told,
    says: Connection,
    act: Callable[..., None],
    given: Mapping[str, Any],
) -> None:
    """In a process of its own: one rank."""
    begin(told)
    named = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count}
    named |= {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": port}
    named |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
    os.environ.update({name: str(value) for name, value in named.items()})
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        act(**given)
    except Exception as error:
        if not isinstance(error, ValueError | OSError):  # whose line says enough
            error.add_note(traceback.format_exc())
        says.send(told_of(error))
        raise SystemExit(1) from None
