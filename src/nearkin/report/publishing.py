"""What becomes of a study's rows: tables on the terminal, a page, rows that others go on from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from nearkin.answers import Answer
from nearkin.files import read_json
from nearkin.report import tables
from nearkin.report.page import write, write_markdown, write_page
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
    answers: Callable[[list[dict]], Answer], rows: list[dict], out: Path, name: str, command: str
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
    answers: Callable[[list[dict]], Answer],
    rows: list[dict],
    out: Path,
    folder: Path,
    name: str,
    command: str,
) -> None:
    """Add the rows to folder/NAME.jsonl, and those of trials to NAME-trials.jsonl; and write their
    page as Markdown with its pictures: of a row that stands there already as it stands there."""
    published, trials = stores(folder, name)
    known = {row["hash"]: row for row in (*published.rows(), *trials.rows())}
    for row in rows:
        if row["hash"] not in known and is_trial(row):
            trials.append(rounded(without_test(row)))
        elif row["hash"] not in known:
            published.append(rounded(row))
    # what stands there may answer another command, and the same run may have been done twice
    shown = results([known.get(row["hash"]) or rounded(row) for row in rows])
    page = write_markdown(answers(shown), shown, folder, out, name=name, command=command)
    print(f"Published: {page}")


def take(folder: Path, name: str, out: Path) -> None:
    """Put published rows that the store does not have into it."""
    store = Store(out)
    known = {row["hash"] for row in store.rows()}
    for old in stores(folder, name):
        for row in old.rows():
            if row["hash"] not in known:
                store.append(row)


def stores(folder: Path, name: str) -> tuple[Store, Store]:
    """The published rows of a page, and those of its trials."""
    return Store(folder, f"{name}.jsonl"), Store(folder, f"{name}-trials.jsonl")


def results(rows: list[dict]) -> list[dict]:
    """The rows that are reported: of a study not its trials, which only chose settings."""
    if not any(row["study"] for row in rows):
        return rows
    return [row for row in rows if not row.get("recipe", {}).get("validate")]


def is_trial(row: dict) -> bool:
    """Whether a study's run only chose settings, on validation classes."""
    return bool(row["study"]) and bool(row.get("recipe", {}).get("validate"))


def without_test(row: dict) -> dict:
    """A trial's row without what nobody reads: it was chosen, or not, on validation classes."""
    return row | {
        "metrics": dict.fromkeys(row["metrics"]),
        "epochs": [
            {k: v for k, v in e.items() if k not in ("test", "monitor")} for e in row["epochs"]
        ],
    }


def rounded(value: Any) -> Any:
    """Floats to six digits, more than any of them is worth: what is published stays small."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value
