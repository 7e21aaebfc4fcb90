"""Many runs: only what is missing, several at a time, each in its order, whatever is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar, overload

import torch

from nearkin import registry
from nearkin.data.sets.catalogue import there
from nearkin.models.folder import own_model
from nearkin.runs.engine import Place, one_line, refuse_left_out, run
from nearkin.runs.log import Silent
from nearkin.runs.machine import cores, keep_freed_memory, machine, versions
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Cost, Measurement, Row
from nearkin.runs.store import Store

Name = TypeVar("Name")

Measurements = dict[str, Callable[[Place], dict[str, Any]]]
"""Hash -> function that measures it: its values, among them `data` and, if not this CPU, `machine`,
which become fields of the measurement."""


@overload
def complete(
    recipes: Mapping[Name, Recipe],
    out: Path | str,
    *,
    study: str = ...,
    jobs: int = ...,
    place: Place = ...,
    bar: Silent | None = ...,
) -> dict[Name, Row]: ...


@overload
def complete(
    recipes: Iterable[Recipe],
    out: Path | str,
    *,
    study: str = ...,
    jobs: int = ...,
    place: Place = ...,
    bar: Silent | None = ...,
) -> list[Row]: ...


def complete(
    recipes: Mapping[Any, Recipe] | Iterable[Recipe],
    out: Path | str,
    *,
    study: str = "",
    jobs: int = 1,
    place: Place = Place(),
    bar: Silent | None = None,
) -> dict[Any, Row] | list[Row]:
    """The rows of all recipes, in their order; only those that are not stored are run.

    Of a mapping the rows have the names that the recipes had there.
    With several jobs each has its share of the cores. A worker that is killed costs at most the
    work since its last checkpoint: its run is tried again, twice at most without any progress.
    """
    if isinstance(recipes, Mapping):
        options: dict[str, Any] = {"study": study, "jobs": jobs, "place": place, "bar": bar}
        rows = {row.hash: row for row in complete(recipes.values(), out, **options)}
        return {name: rows[recipe.hash] for name, recipe in recipes.items()}
    recipes, store, bar = list({r.hash: r for r in recipes}.values()), Store(out), bar or Silent()
    shared = share(place, jobs)
    stored = {row.hash: row for row in store.rows()}
    for recipe in recipes:
        if recipe.hash in stored:
            refuse_left_out(stored[recipe.hash], place)
    missing = [r for r in recipes if r.hash not in stored]
    for recipe in missing if jobs > 1 else ():
        options = {**recipe.backbone_options, **recipe.loss_options}
        registry.refuse_objects([*vars(recipe).values(), *options, *options.values()])
    for name in dict.fromkeys(recipe.data for recipe in missing):
        there(name, place.root)
    starts = {r.start for r in missing if r.start in stored}
    starts = {hash for hash in starts if stored[hash].status == "done"}
    starts -= {hash for hash in starts if own_model(store.run_folder(hash))}
    bar.expect(len(missing) + len(starts))
    for recipe in recipes:
        if recipe.hash in starts:  # of a row that came without its files, as published ones do
            run(recipe, out, place=place, study=study, bar=bar, anew=True)
    for wave in waves(missing):
        if jobs == 1:
            for recipe in wave:
                run(recipe, out, place=place, study=study, bar=bar)
        else:
            work = {r.hash: partial(run, r, out, place=shared, study=study) for r in wave}
            in_processes(work, store, jobs, lambda done: bar.finish(one_line(done.row)))
    rows = {row.hash: row for row in store.rows()}
    return [rows[r.hash] for r in recipes]


def measured(
    asked: Measurements,
    out: Path | str,
    *,
    study: str,
    jobs: int = 1,
    place: Place = Place(),
    bar: Silent | None = None,
) -> list[Measurement]:
    """What a study measures without runs of recipes; what is stored is not measured again."""
    store, bar = Store(out), bar or Silent()
    done = store.stored()
    shared = share(place, jobs)
    work = {
        name: partial(measure, name, make, store, study, shared)
        for name, make in asked.items()
        if name not in done
    }
    bar.expect(len(work))
    if jobs == 1:
        for act in work.values():
            bar.finish(f"{act().hash}  {study}")
    else:
        in_processes(work, store, jobs, lambda row: bar.finish(f"{row.hash}  {study}"))
    stored = store.stored()
    return [one for name in asked if isinstance(one := stored[name], Measurement)]


def measure(
    name: str, make: Callable[[Place], dict[str, Any]], store: Store, study: str, place: Place
) -> Measurement:
    """Measure once, and store it."""
    if place.threads:
        torch.set_num_threads(place.threads)
    began, values = time.perf_counter(), make(place)
    done = Measurement(
        name,
        values,
        data=values.pop("data", None),
        study=study,
        cost=Cost(round(time.perf_counter() - began, 3)),
        versions=versions(),
        machine=values.pop("machine", None) or machine(torch.device("cpu")),
    )
    store.append(done)
    return done


def share(place: Place, jobs: int) -> Place:
    """The place of one of several jobs: each has its share of the cores."""
    if jobs < 1:
        raise ValueError(f"wanted 1 job or more, got {jobs}")
    return place if jobs == 1 else replace(place, threads=place.threads or max(1, cores() // jobs))


def waves(recipes: list[Recipe]) -> list[list[Recipe]]:
    """Recipes in an order in which each comes after the run that it starts from."""
    hashes = {r.hash for r in recipes}
    first = [r for r in recipes if r.start not in hashes]
    later = [r for r in recipes if r.start in hashes]
    return [first] + (waves(later) if later else [])


def begin_worker(entries: Mapping[str, registry.Registry]) -> None:
    """In a worker: know the parent's registries, and end when it does, however that ends."""
    registry.adopt(entries)
    keep_freed_memory()
    parent = parent_process()
    assert parent, "only a worker has a parent to end with"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_processes(
    work: Mapping[str, Callable[[], Any]],
    store: Store,
    jobs: int,
    finish: Callable[[Any], None],
) -> None:
    """Do what makes the row of each hash in `jobs` processes; when one is killed the others' work
    is begun again too."""
    missing, fruitless = list(work), 0
    while missing:
        told = (registry.entries(),)
        workers = min(jobs, len(missing))
        with ProcessPoolExecutor(workers, get_context("spawn"), begin_worker, told) as pool:
            try:
                # workers inherit that they do not hear Ctrl-C: it is said once, and ends them below
                heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                try:
                    futures = [pool.submit(work[hash]) for hash in missing]
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, heard)
                for future in as_completed(futures):
                    finish(future.result())
            except BrokenProcessPool:
                pass  # a worker was killed: what is stored is stored, the rest goes on below
            except BaseException as error:
                for worker in active_children() if isinstance(error, KeyboardInterrupt) else ():
                    worker.terminate()  # what it did since its last checkpoint is done again
                pool.shutdown(cancel_futures=True)
                raise
        done = store.stored()
        still = [hash for hash in missing if hash not in done]
        fruitless = fruitless + 1 if len(still) == len(missing) else 0
        if fruitless == 3:
            raise OSError(f"workers were killed three times over; not done: {still[0]}, ...")
        missing = still
