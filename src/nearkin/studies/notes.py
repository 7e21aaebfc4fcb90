"""The note of a page: which runs a study asked for and under which cases, beside their rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from nearkin.files import read_json, write_whole
from nearkin.names import Plain
from nearkin.studies.study import Case

Found = TypeVar("Found")


@dataclass(frozen=True)
class Note:
    """What a page is made of, so that it can be made anew without asking the study again."""

    name: str
    """of the page's files"""
    study: str
    command: str
    """the words that ask for the same again"""
    data: str = ""
    """the data set as it was asked for; "" is the study's own"""
    cases: Mapping[Case, str] = field(default_factory=dict)
    """case -> key of its run, before it is done its hash; several cases may share one"""
    trials: tuple[str, ...] = ()
    """keys of the runs that chose settings"""

    def write(self, out: Path) -> None:
        """Write it down in the folder of the rows."""
        cases = [{"case": case.plain(), "run": run} for case, run in self.cases.items()]
        text = json.dumps({**vars(self), "cases": cases}, indent=1)
        path = out / "pages" / f"{self.name}.json"
        write_whole(path, lambda file: file.write(text.encode() + b"\n"))

    def found(self, stored: Mapping[str, Found]) -> dict[Case, Found]:
        """The rows of its cases among these, in the cases' order."""
        known = {**newest(stored), **stored}
        return {case: known[run] for case, run in self.cases.items() if run in known}


def newest(stored: Mapping[str, Found]) -> dict[str, Found]:
    """Hash -> the newest of the rows with that hash, which were made on several data."""
    return {getattr(row, "hash", key): row for key, row in stored.items()}


def notes(out: Path) -> list[Note]:
    """The notes of a folder, by name; also of studies that are not finished."""
    return [read_note(path) for path in sorted((out / "pages").glob("*.json"))]


def read_note(path: Path) -> Note:
    """The note of a file; one whose page would be written over other files is refused."""
    try:
        raw = read_json(path)
    except ValueError:
        raw = None
    if isinstance(raw, dict) and raw.keys() == {"name", "study", "command", "rows"}:
        raise ValueError(f"{path} is of an older version: ask for the page anew, {raw['command']}")
    try:
        note = parsed(raw)
        sound = note.name == path.stem
    except (ValueError, TypeError, KeyError):
        sound = False
    if not sound:
        raise ValueError(f"{path} is not the note of a page; delete it")
    return note


def parsed(raw: Any) -> Note:
    """A note from its JSON form."""
    cases = {Case(**one["case"]): one["run"] for one in raw["cases"]}
    note = Note(**{**raw, "cases": cases, "trials": tuple(raw["trials"])})
    texts = (note.name, note.study, note.command, note.data, *cases.values(), *note.trials)
    if not all(isinstance(text, str) for text in (*texts, *(case.method for case in cases))):
        raise TypeError("wanted text")
    plain = all(isinstance(value, Plain) for case in cases for _, value in case.axes)
    if not plain or not all(type(case.seed) is int for case in cases):
        raise TypeError("wanted seeds as whole numbers, and axes of plain values")
    return note


def free_name(out: Path, name: str, data: str) -> str:
    """The name, or where the page of another data set has it already, one of its own: two files
    x.npz in two folders are two pages."""
    path = out / "pages" / f"{name}.json"
    try:
        taken = path.exists() and read_note(path).data != data
    except ValueError:
        taken = False
    return f"{name}-{hashlib.sha256(data.encode()).hexdigest()[:6]}" if taken else name
