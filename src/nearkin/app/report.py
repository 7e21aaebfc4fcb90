"""`nearkin report`: the pages of a folder, made anew from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from nearkin.names import look_up
from nearkin.registry import STUDIES

if TYPE_CHECKING:
    from nearkin.runs.row import Row, Stored
    from nearkin.studies.notes import Note


def report(folder: Positional[Path], study: str = "", publish: Path | None = None) -> None:
    """Write the pages of a folder anew, without running anything: of its studies, finished or not,
    and of its single runs.

    Example: nearkin report out/toolkit

    Example: nearkin report out --study attention --publish docs/results

    Args:
        folder: the --out of earlier studies and runs.
        study: the one whose pages are made; by default all, and that of single runs.
        publish: folder of published results, to write the rows and the Markdown pages to.
    """
    from nearkin.report import single_runs
    from nearkin.report.publishing import keep, show
    from nearkin.runs.row import Row
    from nearkin.runs.store import Store
    from nearkin.studies.ask import Outcome
    from nearkin.studies.notes import newest, notes

    stored = Store(folder).stored()
    if not stored:
        raise ValueError(f"{folder} holds no rows: wanted the --out folder of a study or a run")
    if study:
        look_up(study, STUDIES, "study")
    noted = notes(folder)
    runs = [] if study else single(stored, noted)
    noted = [note for note in noted if study in ("", note.study)]
    if not noted and not runs:
        raise ValueError(f"{folder} holds no page of {f'study {study!r}' if study else 'a study'}")
    for note in noted:
        rows, known = note.found(stored), {**newest(stored), **stored}
        trials = [row for key in note.trials if isinstance(row := known.get(key), Row)]
        wanted, done = {*note.cases.values(), *note.trials}, {*known}
        if not wanted <= done:
            print(f"{note.name}: {len(wanted & done)} of {len(wanted)} runs are done")
        if not rows:
            continue
        outcome = Outcome(look_up(note.study, STUDIES, "study").answer, note, rows, trials)
        show(outcome.answer, rows, folder, note)
        if publish:
            keep(outcome, folder, publish)
    if runs:
        outcome = single_runs.outcome([*runs, *single_runs.beside(folder)])
        show(outcome.answer, outcome.rows, folder, outcome.note)
        if publish:
            keep(outcome, folder, publish)


def single(stored: Mapping[str, Stored], noted: Sequence[Note]) -> list[Row]:
    """The runs that no study asked for."""
    from nearkin.runs.row import Row

    of_studies = {run for note in noted for run in (*note.cases.values(), *note.trials)}
    found = [row for key, row in stored.items() if not (row.study or {key, row.hash} & of_studies)]
    return [row for row in found if isinstance(row, Row) and not row.recipe.trial]


def page_of_runs(folder: Path) -> Path:
    """Write the page of the single runs of a folder, and nothing else."""
    from nearkin.report import single_runs
    from nearkin.report.page import write_page
    from nearkin.runs.store import Store
    from nearkin.studies.notes import notes

    runs = single(Store(folder).stored(), notes(folder))
    outcome = single_runs.outcome([*runs, *single_runs.beside(folder)])
    return write_page(
        outcome.answer, outcome.rows, folder / "report", folder, name=outcome.note.name
    )
