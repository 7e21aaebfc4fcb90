"""What becomes of a study's rows: tables on the terminal, a page, rows that others go on from."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from nearkin.report import tables
from nearkin.report.page import write_markdown, write_page
from nearkin.runs.store import Store


def show(module: ModuleType, rows: list[dict], out: Path, name: str, command: str = "") -> None:
    """Print a study's tables and write its page, as HTML, Markdown and LaTeX."""
    answer = module.answer(results(rows))
    for table in answer.tables:
        Console().print(tables.terminal(table))
    for finding in answer.findings:
        print(finding)
    command = command or command_of(name, rows)
    page = write_page(answer, results(rows), out / "report", out, name=name, command=command)
    print(f"\nReport: {page}")


def keep(
    module: ModuleType, rows: list[dict], out: Path, folder: Path, name: str, command: str = ""
) -> None:
    """Write the rows as folder/NAME.jsonl, and the page as Markdown with its pictures."""
    published = Store(folder, f"{name}.jsonl")
    known = {row["hash"] for row in published.rows()}
    for row in rows:
        if row["hash"] not in known:
            published.append(rounded(row))
    rows = results(published.rows())
    page = write_markdown(
        module.answer(rows),
        rows,
        folder,
        out,
        name=name,
        command=command or command_of(rows[0]["study"] if rows else name, rows),
    )
    print(f"Published: {page}")


def take(published: Path, out: Path) -> None:
    """Put published rows that the store does not have into it."""
    store, old = Store(out), Store(published.parent, published.name)
    known = {row["hash"] for row in store.rows()}
    for row in old.rows():
        if row["hash"] not in known:
            store.append(row)


def results(rows: list[dict]) -> list[dict]:
    """The rows that are reported: not those that only chose settings, on validation classes."""
    return [row for row in rows if not row.get("recipe", {}).get("validate")]


def rounded(value: Any) -> Any:
    """Floats to six digits, more than any of them is worth: what is published stays small."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value


def command_of(study: str, rows: list[dict]) -> str:
    """A command that makes such rows, as far as they tell, without the folders of a machine."""
    data = {row["recipe"]["data"] for row in rows if "recipe" in row}
    return f"nearkin study {study}" + (f" --data {data.pop()}" if len(data) == 1 else "")
