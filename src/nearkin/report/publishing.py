"""What becomes of a study's rows: tables on the terminal, a page, rows that others go on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from nearkin.answers import FINDINGS, Answer
from nearkin.report import tables
from nearkin.report.page import write_markdown, write_page
from nearkin.runs.row import Metrics, Row, Stored, from_json, to_json
from nearkin.runs.store import Store
from nearkin.studies.ask import Outcome
from nearkin.studies.notes import Note
from nearkin.studies.study import Case

PARTS = {"": 320, "-trials": 768}
"""How many rows, and how many trials, a published file holds, which then is below 2 MB."""
WIDE = 160  # characters of a line where tables go to a file, which wraps nothing


def show(answer: Answer, rows: Mapping[Case, Stored], out: Path, note: Note) -> None:
    """Print an answer, its first table and its findings; write its page, as HTML and Markdown."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    for sentence in answer.summary:
        print(sentence)
    for table in answer.tables[:1]:
        console.print(tables.terminal(table))
    for line in (*answer.findings[:FINDINGS], *answer.remarks):
        print(f"- {line}")
    page = write_page(answer, rows, out / "report", out, name=note.name, command=note.command)
    print(f"\nReport: {page}")


def keep(outcome: Outcome, out: Path, folder: Path) -> None:
    """Add the rows to folder/NAME.jsonl, those of trials to NAME-trials.jsonl, and what these have
    no room for to further parts; and write their page as Markdown with its pictures: of a row that
    stands there already as it stands there."""
    name = outcome.note.name
    known = {key: row for part in parts(folder, name) for key, row in part.stored().items()}
    for kind, rows in (("", outcome.rows.values()), ("-trials", outcome.trials)):
        new = {row.key: published(row) for row in rows if row.key not in known}
        add(list(new.values()), folder, name, kind)
        known |= new
    # what stands there may answer another command, and the same run may have been done twice
    shown = replace(outcome, rows={case: known[row.key] for case, row in outcome.rows.items()})
    page = write_markdown(
        shown.answer, shown.rows, folder, out, name=name, command=outcome.note.command
    )
    print(f"Published: {page}")


def take(folder: Path, name: str, out: Path) -> None:
    """Put published rows that the store does not have into it."""
    store = Store(out)
    known = store.stored()
    for part in parts(folder, name):
        store.append(*(row for key, row in part.stored().items() if key not in known))


def parts(folder: Path, name: str) -> list[Store]:
    """All published rows of a page, its trials too."""
    return [part for kind in PARTS for part in parts_of(folder, name, kind)]


def parts_of(folder: Path, name: str, kind: str) -> list[Store]:
    """The published rows of a page, or its trials, as far as there are files."""
    found = [part(folder, name, kind, 1)]
    while (following := part(folder, name, kind, len(found) + 1)).file.exists():
        found.append(following)
    return found


def part(folder: Path, name: str, kind: str, number: int) -> Store:
    """NAME.jsonl, NAME-rows-2.jsonl, ..., of trials NAME-trials.jsonl, NAME-trials-2.jsonl, ...."""
    end = kind if number == 1 else f"{kind or '-rows'}-{number}"
    return Store(folder, f"{name}{end}.jsonl")


def add(rows: list[Stored], folder: Path, name: str, kind: str) -> None:
    """Publish rows, as many in a file as it has room for."""
    number = len(parts_of(folder, name, kind))
    while rows:
        last = part(folder, name, kind, number)
        room = max(0, PARTS[kind] - len(last.stored()))
        last.append(*rows[:room])
        rows, number = rows[room:], number + 1


def published(row: Stored) -> Stored:
    """A row as it is published: floats of six digits, more than any of them is worth, but for those
    of its recipe, by which it is found.

    Of a trial without its test metrics, which nobody reads: validation classes judge it.
    """
    if isinstance(row, Row) and row.recipe.trial:
        epochs = tuple(replace(epoch, test=None, monitor=None) for epoch in row.epochs)
        row = replace(row, metrics=Metrics(last=None), epochs=epochs)
    raw = to_json(row)
    return from_json({k: v if k == "recipe" else rounded(v) for k, v in raw.items()})


def rounded(value: Any) -> Any:
    """A JSON value with its floats rounded to six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value
