"""Workers of other machines: Slurm by submitit, and Ray; `Fleet` is where work is done.

Both start processes that do what a process here would do, in the same shared folder, under the same
leases. So machines may be killed, join and leave, and rows are those of one machine.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from nearkin import registry
from nearkin.extras import optional
from nearkin.names import Plain, unknown
from nearkin.runs.machine import keep_freed_memory
from nearkin.runs.workers import Executor, in_processes, in_this_process

Name = TypeVar("Name")
Done = TypeVar("Done")

MOST_JOBS = 1024
WHERE = ("local", "slurm", "ray")
SHARES = 4  # of each worker's work in Slurm, so that the fast ones do more of them
MOST_SHARES = 1000  # of one array, as Slurm has it by default
LOOK = 0.2, 5.0  # seconds between two looks at jobs, at first and at last
OPTIONS: dict[str, dict[str, Plain]] = {
    "local": {},
    "slurm": {"cluster": "slurm", "cpus_per_task": 1},  # and whatever submitit takes
    "ray": {"cpus": 1, "gpus": 0, "retries": 3},
}
"""What may be chosen of each, with its default."""


@dataclass(frozen=True)
class Fleet:
    """Where pieces of work are done, and how many at a time.

    on: local, these processes; slurm, jobs of an array; ray, or ray:ADDRESS, tasks of a cluster.
    jobs: pieces at a time.
    options: of slurm, submitit's parameters (timeout_min, slurm_partition, gpus_per_node, ...) and
        `cluster`, which is slurm, or local or debug to try it; of ray `cpus` and `gpus` of a piece,
        which may be fractions, and `retries` where a machine is lost.
    """

    on: str = "local"
    jobs: int = 1
    options: Mapping[str, Plain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kind, _, address = self.on.partition(":")
        if kind not in WHERE:
            raise unknown(self.on, WHERE, "place for work")
        if address and kind != "ray":
            raise ValueError(f"only ray takes an address, got {self.on!r}")
        if not 1 <= self.jobs <= MOST_JOBS:
            raise ValueError(f"wanted 1 to {MOST_JOBS} jobs, got {self.jobs}")
        for name, value in self.options.items():
            if name not in OPTIONS[kind] and kind != "slurm":
                if not OPTIONS[kind]:
                    raise ValueError(f"{kind} has no options, got {name}={value}")
                raise unknown(name, OPTIONS[kind], f"option of {kind}")
            if kind == "ray" and not is_amount(value):
                raise ValueError(f"{name} of ray must be a number of at least 0, got {value!r}")
        if self.option("cluster") not in (None, "slurm", "local", "debug"):
            raise ValueError(f"cluster must be slurm, local or debug, got {self.option('cluster')}")
        if not isinstance(self.option("cpus_per_task") or 1, int):
            raise ValueError(f"cpus_per_task wants a whole number, got {self.options}")

    def option(self, name: str) -> Any:
        """An option, as it was chosen or by default; None where there is none of this name."""
        return {**OPTIONS[self.on.partition(":")[0]], **self.options}.get(name)

    @property
    def threads(self) -> int:
        """Threads of one piece on another machine: as many as it has processors, of whatever number
        that machine has, as numbers of threads change the last bits. 0: this machine."""
        if self.on == "local":
            return 0
        return max(1, int(self.option("cpus") or self.option("cpus_per_task") or 1))

    def executor(self, folder: Path) -> Executor:
        """What does the work; folder: where it may leave files of its own.

        Raises: MissingExtra, where its library is not installed.
        """
        kind, _, address = self.on.partition(":")
        with optional():
            if kind == "slurm":
                import submitit  # noqa: F401

                return partial(by_submitit, fleet=self, folder=folder / "slurm")
            if kind == "ray":
                import ray  # noqa: F401

                return partial(by_ray, fleet=self, address=address)
        return in_this_process if self.jobs == 1 else partial(in_processes, jobs=self.jobs)


def is_amount(value: object) -> bool:
    """Whether a value is a number of processors or the like."""
    return isinstance(value, int | float) and type(value) is not bool and 0 <= value < 1e6


@dataclass(frozen=True)
class Setting:
    """What a process elsewhere must have to do what this one would do: the folder from which paths
    count, NEARKIN's variables, and names that were added to the registries."""

    folder: str = field(default_factory=os.getcwd)
    variables: Mapping[str, str] = field(
        default_factory=lambda: {k: v for k, v in os.environ.items() if k.startswith("NEARKIN_")}
    )
    entries: Mapping[str, registry.Registry] = field(default_factory=registry.entries)

    def adopt(self) -> None:
        os.chdir(self.folder)
        os.environ.update(self.variables)
        registry.adopt(self.entries)
        keep_freed_memory()


@dataclass(frozen=True)
class Failure:
    """What went wrong in a piece of work elsewhere, to be raised here."""

    error: Exception


def attempted(setting: Setting, piece: Callable[[], Any]) -> Any:
    """A piece of work elsewhere: its result, or the error that a person is to be told."""
    setting.adopt()
    try:
        return piece()
    except (ValueError, OSError) as error:
        return Failure(error)


@dataclass
class Share:
    """Some pieces of work, one after the other: one job of Slurm.

    Where its time is up, or others come first, submitit puts it back into the queue as it is: what
    it has done is found stored, and the run that it was at goes on from its checkpoint.
    """

    setting: Setting
    pieces: list[tuple[Any, Callable[[], Any]]]

    def __call__(self) -> list[tuple[Any, Any]]:
        return [(name, attempted(self.setting, piece)) for name, piece in self.pieces]

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def by_submitit(
    work: Mapping[Name, Callable[[], Done | None]],
    finish: Callable[[Done], None],
    fleet: Fleet,
    folder: Path,
) -> dict[Name, Done | None]:
    """Executor: an array of jobs, each with a share of the work."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError

    cluster = str(fleet.option("cluster"))
    chosen = {k: v for k, v in {**OPTIONS["slurm"], **fleet.options}.items() if k != "cluster"}
    shares = min(fleet.jobs * (SHARES if cluster == "slurm" else 1), len(work), MOST_SHARES)
    if cluster == "slurm":
        chosen = {"slurm_array_parallelism": fleet.jobs, "name": "nearkin", **chosen}
    else:
        del chosen["cpus_per_task"]  # which the machine itself does not ration
    try:
        queue = submitit.AutoExecutor(folder=(folder / "%j").absolute(), cluster=cluster)
        queue.update_parameters(**chosen)
    except (RuntimeError, TypeError, NameError) as error:
        raise ValueError(f"slurm: {error}") from None
    setting, pieces = Setting(), list(work.items())
    parts = [Share(setting, pieces[i::shares]) for i in range(shares)]
    done: dict[Name, Done | None] = {}
    try:
        with queue.batch():
            submitted = [queue.submit(part) for part in parts]
        jobs = list(submitted)
    except FailedSubmissionError as error:
        raise OSError(f"slurm: {error}") from None
    pause, longest = LOOK
    try:
        while jobs:
            ended = [job for job in jobs if job.done()]
            for job in ended:
                jobs.remove(job)
                try:
                    results = job.result()
                except (UncompletedJobError, FailedJobError):
                    continue  # it was killed: what is stored is stored
                take(results, done, finish)
            pause = LOOK[0] if ended else min(1.5 * pause, longest)
            time.sleep(pause if jobs else 0)
    finally:
        for job in jobs:  # of a person who stops, or where a piece of work is wrong
            job.cancel(check=False)
    return done


def by_ray(
    work: Mapping[Name, Callable[[], Done | None]],
    finish: Callable[[Done], None],
    fleet: Fleet,
    address: str,
) -> dict[Name, Done | None]:
    """Executor: a task of a Ray cluster each; without an address, of one on this machine alone.

    A task whose machine is lost is given to another by Ray, as often as `retries` says.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    ours = not ray.is_initialized()
    if ours:
        options: dict[str, Any] = {"address": address} if address else {"include_dashboard": False}
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError) as error:
            raise ValueError(f"ray:{address}: {str(error).splitlines()[0]}") from None
    task: Any = ray.remote(
        num_cpus=fleet.option("cpus"),
        num_gpus=fleet.option("gpus"),
        max_retries=int(fleet.option("retries")),
    )(attempted)
    setting, left = Setting(), list(work.items())
    running: dict[Any, Name] = {}
    done: dict[Name, Done | None] = {}
    try:
        while left or running:
            while left and len(running) < fleet.jobs:
                name, piece = left.pop(0)
                running[task.remote(setting, piece)] = name
            for ended in ray.wait(list(running))[0]:
                name = running.pop(ended)
                try:
                    result = ray.get(ended)
                except RayTaskError:
                    raise
                except RayError:
                    continue  # it was killed more often than it is tried
                take([(name, result)], done, finish)
    finally:
        if ours:
            ray.shutdown()
    return done


def take(
    results: list[tuple[Name, Any]],
    done: dict[Name, Done | None],
    finish: Callable[[Done], None],
) -> None:
    """Note the results of another machine, and raise here what went wrong there."""
    for name, result in results:
        if isinstance(result, Failure):
            raise result.error
        done[name] = result
        if result is not None:
            finish(result)
