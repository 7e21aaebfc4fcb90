"""Run the recipes that have no row yet, in parallel, restarting after a killed worker."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from nearkin.runs.build import refuse_unfit, refuse_unknown
from nearkin.runs.engine import announce, served
from nearkin.runs.engine import carry_out as run
from nearkin.runs.ingredients import find_measurement, find_row, loaded
from nearkin.runs.log import Silent
from nearkin.runs.machine import cores, keep_freed_memory, machine, usable, versions
from nearkin.runs.manners import as_found
from nearkin.runs.outcome import described, one_line
from nearkin.runs.place import Place
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Cost, Measurement, Row
from nearkin.runs.store import Store

Name = TypeVar("Name")
Done = TypeVar("Done")

MOST_JOBS = 1024

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

    Of a mapping the rows have the names that the recipes had there; otherwise recipes that come to
    the same run have one row. Names, options and data sets are checked before the first run starts.
    With several jobs each has its share of the cores. A worker that is killed costs at most the
    work since its last checkpoint: its run is tried again, twice at most without any progress.
    """
    if isinstance(recipes, Mapping):
        options: dict[str, Any] = {"study": study, "jobs": jobs, "place": place, "bar": bar}
        rows = complete(recipes.values(), out, **options)
        runs = dict(zip(dict.fromkeys(map(same_run, recipes.values())), rows, strict=True))
        return {name: runs[same_run(recipe)] for name, recipe in recipes.items()}
    store, bar, shared = Store(out), bar or Silent(), share(place, jobs)
    wanted: dict[tuple, Recipe] = {}
    for recipe in recipes:
        wanted.setdefault(same_run(recipe), recipe)
    recipes = list(wanted.values())
    found = {recipe: find_row(recipe, store, place) for recipe in recipes}
    announce(list(found.values()), bar)
    rows = from_the_same_start({r: one.row for r, one in found.items() if one.row}, recipes)
    missing = [recipe for recipe in recipes if recipe not in rows]
    refuse_before_the_first_run(missing, jobs, place)
    for row in rows.values():
        served(row, store)
    starts = {recipe.start for recipe in missing}
    fileless = {
        recipe: row
        for recipe, row in rows.items()  # that came without their files, as published ones do
        if row.status == "done" and row.hash in starts
        if not own_model(store.folder_of(row))
    }
    bar.expect(len(missing) + len(fileless))
    for recipe, row in fileless.items():
        run(recipe, store, place, study, bar, again=row)
    for wave in waves(missing):
        if jobs == 1:
            rows |= {r: run(r, store, place, study, bar).row for r in wave}
        else:
            work = {r: partial(run, r, store, shared, study) for r in wave}
            done = in_processes(work, jobs, lambda one: bar.finish(one_line(one.row)))
            rows |= {recipe: one.row for recipe, one in done.items()}
    return [rows[recipe] for recipe in recipes]


def from_the_same_start(rows: dict[Recipe, Row], recipes: Sequence[Recipe]) -> dict[Recipe, Row]:
    """The rows, less those that started from a run that is to be done anew first."""
    anew = {recipe.hash for recipe in recipes if recipe not in rows}
    kept = {r: row for r, row in rows.items() if r.start not in anew or "start" not in row.made_of}
    return kept if len(kept) == len(rows) else from_the_same_start(kept, recipes)


def same_run(recipe: Recipe) -> tuple:
    """What recipes have in common that come to one run: their hash, and the places of their files,
    which are no part of it."""
    return recipe.hash, recipe.data, recipe.start, recipe.backbone_options.get("weights")


def refuse_before_the_first_run(recipes: Sequence[Recipe], jobs: int, place: Place) -> None:
    """Refuse what would fail in the middle of a study."""
    parts = ("loss", "loss_options", "dim", "memory", "miner", "backbone", "backbone_options")
    alike = {tuple(getattr(recipe, part) for part in parts): recipe for recipe in recipes}
    for recipe in alike.values():
        refuse_unfit(recipe)
    for recipe in recipes:
        refuse_unknown(recipe)
        if jobs > 1:
            options = {**recipe.backbone_options, **recipe.loss_options}
            registry.refuse_objects([*vars(recipe).values(), *options, *options.values()])
    for name in dict.fromkeys(recipe.data for recipe in recipes):
        there(name, place.root)


def measured(
    measurements: Measurements,
    out: Path | str,
    *,
    study: str,
    data: Mapping[str, Recipe] | None = None,
    jobs: int = 1,
    place: Place = Place(),
    bar: Silent | None = None,
) -> list[Measurement]:
    """What a study measures without runs of recipes; what is stored is not measured again.

    data: of what is measured on a data set, a recipe that has it; on others it is measured anew.
    """
    store, bar, shared = Store(out), bar or Silent(), share(place, jobs)
    recipes = {name: (data or {}).get(name) for name in measurements}
    found = {name: find_measurement(name, recipes[name], store, place) for name in measurements}
    announce(list(found.values()), bar)
    rows = {name: one.row for name, one in found.items() if one.row}
    work = {
        name: partial(measure, name, make, store, study, shared, recipes[name])
        for name, make in measurements.items()
        if name not in rows
    }
    bar.expect(len(work))
    if jobs == 1:
        for name, act in work.items():
            rows[name] = act()
            bar.finish(f"{name}  {study}")
    else:
        rows |= in_processes(work, jobs, lambda one: bar.finish(f"{one.hash}  {study}"))
    return [rows[name] for name in measurements]


def measure(
    name: str,
    make: Callable[[Place], dict[str, Any]],
    store: Store,
    study: str,
    place: Place,
    recipe: Recipe | None = None,
) -> Measurement:
    """Measure once, and store it; the process is left as it was found."""
    with as_found(place.threads, usable(place.device)):
        commit = versions()
        known = loaded(recipe, place) if recipe else None
        began, values = time.perf_counter(), make(place)
        seconds = round(time.perf_counter() - began, 3)
        of = values.pop("data", None)
        if known:
            of = replace(of or described(known.splits), fingerprint=known.fingerprint)
        done = Measurement(
            name,
            values,
            data=of,
            study=study,
            cost=Cost(seconds),
            versions=commit,
            machine=values.pop("machine", None) or machine(torch.device("cpu")),
        )
    store.append(done)
    return done


def share(place: Place, jobs: int) -> Place:
    """The place of one of several jobs: each has its share of the cores."""
    if not 1 <= jobs <= MOST_JOBS:
        raise ValueError(f"wanted 1 to {MOST_JOBS} jobs, got {jobs}")
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
    work: Mapping[Name, Callable[[], Done]], jobs: int, finish: Callable[[Done], None]
) -> dict[Name, Done]:
    """The results of all work, done in `jobs` processes; when one is killed, what the others have
    not finished is begun again too."""
    done: dict[Name, Done] = {}
    fruitless = 0
    while missing := [name for name in work if name not in done]:
        before = len(done)
        entries, workers = (registry.entries(),), min(jobs, len(missing))
        with ProcessPoolExecutor(workers, get_context("spawn"), begin_worker, entries) as pool:
            try:
                # workers inherit that they do not hear Ctrl-C: it is said once, and ends them below
                heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                try:
                    futures = {pool.submit(work[name]): name for name in missing}
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, heard)
                for future in as_completed(futures):
                    done[futures[future]] = future.result()
                    finish(future.result())
            except BrokenProcessPool:
                pass  # a worker was killed: what is stored is stored, the rest goes on below
            except BaseException as error:
                for worker in active_children() if isinstance(error, KeyboardInterrupt) else ():
                    worker.terminate()  # what it did since its last checkpoint is done again
                pool.shutdown(cancel_futures=True)
                raise
        fruitless = 0 if len(done) > before else fruitless + 1
        if fruitless == 3:
            name = getattr(missing[0], "hash", missing[0])
            raise OSError(f"workers were killed three times over; not done: {name}, ...")
    return done
