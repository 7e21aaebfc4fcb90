"""Run the recipes that have no row yet, one by one, in several processes or on several machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, overload

import torch

from nearkin import registry
from nearkin.data.sets.catalogue import there
from nearkin.leases import Taken
from nearkin.models.folder import own_model
from nearkin.names import Plain
from nearkin.runs.build import refuse_unfit, refuse_unknown
from nearkin.runs.engine import Result, announce, served
from nearkin.runs.engine import carry_out as run
from nearkin.runs.fleet import Fleet
from nearkin.runs.ingredients import find_measurement, find_row, loaded
from nearkin.runs.log import Silent
from nearkin.runs.machine import cores, machine, usable, versions
from nearkin.runs.manners import as_found
from nearkin.runs.outcome import described, one_line
from nearkin.runs.place import Place
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Cost, Measurement, Row
from nearkin.runs.store import Store
from nearkin.runs.workers import until_done

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
    on: str = ...,
    on_options: Mapping[str, Plain] = ...,
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
    on: str = ...,
    on_options: Mapping[str, Plain] = ...,
    place: Place = ...,
    bar: Silent | None = ...,
) -> list[Row]: ...


def complete(
    recipes: Mapping[Any, Recipe] | Iterable[Recipe],
    out: Path | str,
    *,
    study: str = "",
    jobs: int = 1,
    on: str = "local",
    on_options: Mapping[str, Plain] = MappingProxyType({}),
    place: Place = Place(),
    bar: Silent | None = None,
) -> dict[Any, Row] | list[Row]:
    """The rows of all recipes, in their order; only those that are not stored are run.

    Of a mapping the rows have the names that the recipes had there; otherwise recipes that come to
    the same run have one row. Names, options and data sets are checked before the first run starts.
    With several jobs each has its share of the cores. A worker that is killed costs at most the
    work since its last checkpoint: its run is tried again, twice at most without any progress.
    Several processes, and machines that share the folder `out`, may do this at once: each run is
    done by one of them.

    Args:
        study: the study that asks.
        jobs: runs at a time, each in a process of its own.
        on, on_options: where: local, slurm, ray or ray:ADDRESS, and its options (`Fleet`).
        place: where the data are, and what the work is done on.
        bar: what shows how far it is.
    """
    fleet = Fleet(on, jobs, on_options)
    if isinstance(recipes, Mapping):
        options: dict[str, Any] = {"study": study, "jobs": jobs, "place": place, "bar": bar}
        options |= {"on": on, "on_options": on_options}
        rows = complete(recipes.values(), out, **options)
        runs = dict(zip(dict.fromkeys(map(same_run, recipes.values())), rows, strict=True))
        return {name: runs[same_run(recipe)] for name, recipe in recipes.items()}
    store, bar, shared = Store(out), bar or Silent(), workplace(place, fleet)
    act = fleet.executor(store.folder)
    wanted: dict[tuple, Recipe] = {}
    for recipe in recipes:
        wanted.setdefault(same_run(recipe), recipe)
    recipes = list(wanted.values())
    found = {recipe: find_row(recipe, store, place) for recipe in recipes}
    announce(list(found.values()), bar)
    rows = from_the_same_start({r: one.row for r, one in found.items() if one.row}, recipes)
    missing = [recipe for recipe in recipes if recipe not in rows]
    refuse_before_the_first_run(missing, fleet, place)
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
    here = fleet == Fleet()  # the bar is this process's alone
    for wave in waves(missing):
        work = {r: partial(attempt, r, store, shared, study, bar if here else None) for r in wave}

        def finish(one: Result) -> None:
            if not here:
                bar.finish(one_line(one.row))

        done = until_done(work, act, lambda r: store.taken(r.hash), finish, bar.say)
        rows |= {recipe: one.row for recipe, one in done.items()}
    return [rows[recipe] for recipe in recipes]


def attempt(
    recipe: Recipe, store: Store, place: Place, study: str, bar: Silent | None
) -> Result | None:
    """A run that is not stored; None where another process is at it."""
    if store.taken(recipe.hash):
        return None
    try:
        return run(recipe, store, place, study, bar, wait=False)
    except Taken:
        return None


def from_the_same_start(rows: dict[Recipe, Row], recipes: Sequence[Recipe]) -> dict[Recipe, Row]:
    """The rows, less those that started from a run that is to be done anew first."""
    anew = {recipe.hash for recipe in recipes if recipe not in rows}
    kept = {r: row for r, row in rows.items() if r.start not in anew or "start" not in row.made_of}
    return kept if len(kept) == len(rows) else from_the_same_start(kept, recipes)


def same_run(recipe: Recipe) -> tuple:
    """What recipes have in common that come to one run: their hash, and the places of their files,
    which are no part of it."""
    return recipe.hash, recipe.data, recipe.start, recipe.backbone_options.get("weights")


def refuse_before_the_first_run(recipes: Sequence[Recipe], fleet: Fleet, place: Place) -> None:
    """Refuse what would fail in the middle of a study."""
    parts = ("loss", "loss_options", "dim", "memory", "miner", "backbone", "backbone_options")
    alike = {tuple(getattr(recipe, part) for part in parts): recipe for recipe in recipes}
    for recipe in alike.values():
        refuse_unfit(recipe)
    for recipe in recipes:
        refuse_unknown(recipe)
        if fleet.jobs > 1 or fleet.on != "local":
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
    on: str = "local",
    on_options: Mapping[str, Plain] = MappingProxyType({}),
    place: Place = Place(),
    bar: Silent | None = None,
) -> list[Measurement]:
    """What a study measures without runs of recipes; what is stored is not measured again.

    data: of what is measured on a data set, a recipe that has it; on others it is measured anew.
    """
    fleet = Fleet(on, jobs, on_options)
    store, bar, shared = Store(out), bar or Silent(), workplace(place, fleet)
    act = fleet.executor(store.folder)
    recipes = {name: (data or {}).get(name) for name in measurements}
    found = {name: find_measurement(name, recipes[name], store, place) for name in measurements}
    announce(list(found.values()), bar)
    rows = {name: one.row for name, one in found.items() if one.row}
    work = {
        name: partial(attempt_measure, Wanted(name, make, study, recipes[name]), store, shared)
        for name, make in measurements.items()
        if name not in rows
    }
    bar.expect(len(work))
    rows |= until_done(
        work,
        act,
        lambda name: store.claims.taken(store.parts / name),
        lambda one: bar.finish(f"{one.hash}  {study}"),
        bar.say,
    )
    return [rows[name] for name in measurements]


@dataclass(frozen=True)
class Wanted:
    """A measurement that a study asks for.

    make: what measures it, at a place.
    recipe: one that has the data set it is measured on; None: it is measured on none.
    """

    hash: str
    make: Callable[[Place], dict[str, Any]]
    study: str
    recipe: Recipe | None = None


def attempt_measure(wanted: Wanted, store: Store, place: Place) -> Measurement | None:
    """A measurement that is not stored; None where another process is at it."""
    folder = store.parts / wanted.hash  # it leaves no files that would want a folder of their own
    if store.claims.taken(folder):
        return None
    try:
        with store.claims(folder, wait=False):
            done = find_measurement(wanted.hash, wanted.recipe, store, place).row
            if done is None:
                store.append(done := measure(wanted, place))
            return done
    except Taken:
        return None


def measure(wanted: Wanted, place: Place) -> Measurement:
    """Measure once; the process is left as it was found."""
    with as_found(place.threads, usable(place.device)):
        commit = versions()
        known = loaded(wanted.recipe, place) if wanted.recipe else None
        began, values = time.perf_counter(), wanted.make(place)
        seconds = round(time.perf_counter() - began, 3)
        of = values.pop("data", None)
        if known:
            of = replace(of or described(known.splits), fingerprint=known.fingerprint)
        return Measurement(
            wanted.hash,
            values,
            data=of,
            study=wanted.study,
            cost=Cost(seconds),
            versions=commit,
            machine=values.pop("machine", None) or machine(torch.device("cpu")),
        )


def share(place: Place, jobs: int) -> Place:
    """The place of one of several jobs on this machine: each has its share of the cores."""
    return workplace(place, Fleet(jobs=jobs))


def workplace(place: Place, fleet: Fleet) -> Place:
    """The place of one piece of work: of several on this machine each has its share of the cores,
    and elsewhere as many as it asks for."""
    if fleet.on == "local" and fleet.jobs == 1:
        return place
    return replace(place, threads=place.threads or fleet.threads or max(1, cores() // fleet.jobs))


def waves(recipes: list[Recipe]) -> list[list[Recipe]]:
    """Recipes in an order in which each comes after the run that it starts from."""
    hashes = {r.hash for r in recipes}
    first = [r for r in recipes if r.start not in hashes]
    later = [r for r in recipes if r.start in hashes]
    return [first] + (waves(later) if later else [])
