"""Asking a study: its options are checked, its settings searched, its runs made, its rows read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nearkin.answers import Answer
from nearkin.data import load
from nearkin.names import Plain, construct, look_up, parameters_of, typed
from nearkin.registry import STUDIES
from nearkin.runs.engine import Place
from nearkin.runs.executors import complete, measured
from nearkin.runs.fleet import Fleet
from nearkin.runs.log import Silent
from nearkin.runs.row import Row, Stored
from nearkin.studies.notes import Note, free_name
from nearkin.studies.shared.comparable import comparable
from nearkin.studies.shared.controls import DIM
from nearkin.studies.study import Case, Study

FLAGS = ("data", "seeds", "epochs")
"""Options that are flags of `nearkin study`; all others go behind --options."""
BOUNDS = {"seeds": (1, 1000), "epochs": (0, 10**6)}


@dataclass(frozen=True)
class Outcome:
    """What a study came to: its rows under their cases, and those of the trials that chose its
    settings."""

    read: Callable[[Mapping[Case, Any]], Answer]
    """the study's `answer`"""
    note: Note
    rows: Mapping[Case, Stored]
    trials: Sequence[Row] = ()

    @property
    def answer(self) -> Answer:
        """What the study says of those rows that can be compared, with remarks on the others."""
        found, remarks = comparable(self.rows)
        answer = self.read(found)
        return replace(answer, remarks=(*answer.remarks, *remarks))


def study(
    name: str,
    *,
    out: Path | str = "out",
    jobs: int = 1,
    on: str = "local",
    on_options: Mapping[str, Plain] = MappingProxyType({}),
    place: Place = Place(),
    bar: Silent | None = None,
    demo: bool = False,
    **options: Plain,
) -> Answer:
    """The answer of a study, for which only those runs are made that are not stored in `out`.

    Args:
        name: of `nearkin list`.
        out: folder of the rows, of which `nearkin report` makes pages.
        jobs: runs at a time, each in a process of its own.
        on, on_options: where they are done, and its options: local; slurm, ray or ray:ADDRESS,
            whose machines share `out`. `nearkin.runs.fleet.Fleet` says which options there are.
        place: where the data are, and what the work is done on.
        bar: what shows how far it is.
        demo: a short form of the study, to see what it does.
        options: the study's own, such as data, seeds and epochs.

    Raises: ValueError before the first run, where an option or a name is wrong.
    """
    way: dict[str, Any] = {"jobs": jobs, "on": on, "on_options": on_options, "place": place}
    return ask(name, options, out=out, bar=bar, demo=demo, **way).answer


def ask(
    name: str,
    options: Mapping[str, Plain],
    *,
    out: Path | str = "out",
    jobs: int = 1,
    on: str = "local",
    on_options: Mapping[str, Plain] = MappingProxyType({}),
    place: Place = Place(),
    bar: Silent | None = None,
    demo: bool = False,
) -> Outcome:
    """Search, run and note what a study asks for, as `study`; the outcome holds the rows too."""
    Fleet(on, jobs, on_options).executor(Path(out))  # refuses before anything is written
    asked: Study = look_up(name, STUDIES, "study")
    given, kind, out = merged(asked, name, options, demo), f"option of study {name!r}", Path(out)
    given = {**start_that_fits(asked, given, place), **given}
    note = Note(
        name=page_name(name, options, demo, out),
        study=name,
        command=command(name, options, demo),
        data=str(options.get("data", "")),
    )
    way: dict[str, Any] = {"study": name, "jobs": jobs, "place": place, "bar": bar}
    way |= {"on": on, "on_options": on_options}
    runs = construct(asked.asks, given, kind)  # a wrong option fails here, at once
    if asked.measure:
        note = replace(note, cases={case: task.hash for case, task in runs.items()})
        note.write(out)
        tasks = {task.hash: task.measure for task in runs.values()}
        data = {task.hash: task.recipe for task in runs.values() if task.recipe}
        done = {one.hash: one for one in measured(tasks, out, data=data, **way)}
        rows = note.found(done)
        note = replace(note, cases={case: row.key for case, row in rows.items()})
        note.write(out)
        return Outcome(asked.answer, note, rows)
    trials: dict[Case, Row] = {}
    if asked.search:
        known = parameters_of(asked.search)
        sought = construct(asked.search, {k: v for k, v in given.items() if k in known}, kind)
        trials = complete(sought, out, **way)
        runs = construct(asked.asks, {**given, "searched": trials}, kind)
    note = replace(
        note,
        cases={case: recipe.hash for case, recipe in runs.items()},
        trials=tuple(dict.fromkeys(row.hash for row in trials.values())),
    )
    note.write(out)
    rows = complete(runs, out, **way)
    note = replace(
        note,
        cases={case: row.key for case, row in rows.items()},
        trials=tuple(dict.fromkeys(row.key for row in trials.values())),
    )
    note.write(out)
    return Outcome(asked.answer, note, rows, list(trials.values()))


def merged(asked: Study, name: str, options: Mapping[str, Plain], demo: bool) -> dict[str, Plain]:
    """The options, with those of the short form below them; counts within their bounds."""
    if demo and asked.demo is None:
        raise ValueError(f"study {name!r} has no short form: leave out --demo")
    found = {**(asked.demo if demo and asked.demo else {}), **options}
    for count, (least, most) in BOUNDS.items():
        value = found.get(count)
        if isinstance(value, int) and not least <= value <= most:
            raise ValueError(f"{count} must be {least} to {most}, got {value}")
    return found


def start_that_fits(asked: Study, given: Mapping[str, Plain], place: Place) -> dict[str, Plain]:
    """start=orthogonal, where a study on features starts heads as closed forms by default, and
    there are fewer features than a head of it has dimensions; else nothing."""
    known, data = parameters_of(asked.asks), str(given.get("data", ""))
    if "start" not in known or not data.startswith("features:") or "," in data:
        return {}
    default = known["dims"].default if "dims" in known else DIM
    widest = max(int(d) for d in re.findall(r"\d+", str(given.get("dims", default))) or [DIM])
    try:
        features = load(data, place.root).train.tensor.shape[1]
    except (ValueError, OSError):  # which is said when all options are known to be right
        return {}
    return {"start": "orthogonal"} if features < widest else {}


def command(name: str, options: Mapping[str, Plain], demo: bool = False) -> str:
    """The words that ask for the same again, without the folders of this machine.

    >>> command("rivals", {"data": "cub", "seeds": 3, "dims": 64})
    'nearkin study rivals --data cub --seeds 3 --options dims=64'
    """
    words = ["nearkin", "study", name]
    words += [str(w) for f in FLAGS if f in options for w in (f"--{f}", options[f])]
    words += ["--demo"] if demo else []
    others = {key: value for key, value in options.items() if key not in FLAGS}
    words += ["--options", *(f"{k}={typed(v)}" for k, v in others.items())] if others else []
    return shlex.join(words)


def page_name(name: str, options: Mapping[str, Plain], demo: bool, out: Path) -> str:
    """The study, the data sets, epochs and start that were asked for; and whether it is a demo."""
    data = str(options.get("data", ""))
    sets = [one.partition(":") for one in data.split(",") if one]
    budget = [f"epochs-{options['epochs']}"] if options.get("epochs") else []
    budget += [str(options["start"])] if options.get("start") else []
    budget += ["demo"] if demo else []
    parts = (name, *(Path(path).stem or kind for kind, _, path in sets), *budget)
    return free_name(out, "-".join(parts), data)
