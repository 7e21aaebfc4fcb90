"""What becomes of a study's rows: tables on the terminal, a page, rows that others go on from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from nearkin.answers import Answer
from nearkin.files import read_json
from nearkin.report import tables
from nearkin.report.page import write, write_markdown, write_page
from nearkin.runs.row import Metrics, Row, Stored, from_json, to_json
from nearkin.runs.store import Store

WIDE = 160  # characters of a line where tables go to a file, which wraps nothing


@dataclass(frozen=True)
class Page:
    """What a page is made of: a study, the command that asked for it, and the hashes of its rows,
    some of which other studies have asked for before."""

    name: str
    study: str
    command: str
    rows: list[str]

    def note(self, out: Path) -> None:
        """Write it down in the folder of the rows, so that the page can be made anew."""
        write(out / "pages" / f"{self.name}.json", json.dumps(asdict(self), indent=1))


def noted(out: Path) -> list[Page]:
    """The pages of a folder, by name; also of studies that are not finished."""
    return [read_page(path) for path in sorted((out / "pages").glob("*.json"))]


def read_page(path: Path) -> Page:
    """The page that a note names; a note under another name would write over other files."""
    try:
        page = Page(**read_json(path))
        texts = (page.study, page.command, *page.rows)
        sound = page.name == path.stem and all(isinstance(text, str) for text in texts)
    except (ValueError, TypeError):
        sound = False
    if not sound:
        raise ValueError(f"{path} is not the note of a page; delete it")
    return page


def show(
    answers: Callable[[list[Any]], Answer],
    rows: Sequence[Stored],
    out: Path,
    name: str,
    command: str,
) -> None:
    """Print a study's tables and write its page, as HTML, Markdown and LaTeX."""
    answer = answers(results(rows))
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    for table in answer.tables:
        console.print(tables.terminal(table))
    for finding in answer.findings:
        print(finding)
    page = write_page(answer, results(rows), out / "report", out, name=name, command=command)
    print(f"\nReport: {page}")


def keep(
    answers: Callable[[list[Any]], Answer],
    rows: Sequence[Stored],
    out: Path,
    folder: Path,
    name: str,
    command: str,
) -> None:
    """Add the rows to folder/NAME.jsonl, and those of trials to NAME-trials.jsonl; and write their
    page as Markdown with its pictures: of a row that stands there already as it stands there."""
    reported, trials = stores(folder, name)
    known = reported.stored() | trials.stored()
    for row in rows:
        if row.hash not in known:
            (trials if is_trial(row) else reported).append(published(row))
    # what stands there may answer another command, and the same run may have been done twice
    shown = results([known.get(row.hash) or published(row) for row in rows])
    page = write_markdown(answers(shown), shown, folder, out, name=name, command=command)
    print(f"Published: {page}")


def take(folder: Path, name: str, out: Path) -> None:
    """Put published rows that the store does not have into it."""
    store = Store(out)
    known = store.stored()
    for old in stores(folder, name):
        for hash, row in old.stored().items():
            if hash not in known:
                store.append(row)


def stores(folder: Path, name: str) -> tuple[Store, Store]:
    """The published rows of a page, and those of its trials."""
    return Store(folder, f"{name}.jsonl"), Store(folder, f"{name}-trials.jsonl")


def results(rows: Sequence[Stored]) -> list[Any]:
    """The rows that are reported: not the trials of a study, which only chose settings."""
    return [row for row in rows if not is_trial(row)]


def is_trial(row: Stored) -> bool:
    """Whether a study's run only chose settings, on validation classes."""
    return isinstance(row, Row) and row.recipe.trial


def published(row: Stored) -> Stored:
    """A row as it is published: floats of six digits, more than any of them is worth.

    Of a trial without its test metrics, which nobody reads: validation classes judge it.
    """
    if isinstance(row, Row) and row.recipe.trial:
        epochs = tuple(replace(epoch, test=None, monitor=None) for epoch in row.epochs)
        row = replace(row, metrics=Metrics(last=None), epochs=epochs)
    return from_json(rounded(to_json(row)))


def rounded(value: Any) -> Any:
    """A JSON value with its floats rounded to six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value
