"""A folder of rows: one JSON line for each (runs/row.py), appended whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nearkin.runs.migrate import migrated
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row, Stored, from_json, to_json


class Store:
    """A folder of rows and of what their runs left: rows.jsonl, and runs/HASH/ for each run."""

    def __init__(self, folder: Path | str, name: str = "rows.jsonl"):
        self.folder = Path(folder)
        self.file = self.folder / name

    def stored(self) -> dict[str, Stored]:
        """Hash -> row or measurement, the first of each hash; a line that was cut off is neither.

        Raises: ValueError with file and line, where a line is neither.
        """
        found: dict[str, Stored] = {}
        for number, line in enumerate(self.lines(), 1):
            place = f"{self.file}: line {number} is not a row"
            try:
                raw = json.loads(line)
            except (ValueError, RecursionError):
                raise ValueError(f"{place}: {line[:60]!r}") from None
            try:
                one = from_json(migrated(raw))
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None
            found.setdefault(one.hash, one)
        return found

    def rows(self) -> list[Row]:
        """The rows of all runs, the first of each hash."""
        return [row for row in self.stored().values() if isinstance(row, Row)]

    def lines(self) -> list[str]:
        """The complete lines of the file."""
        try:
            text = self.file.read_text() if self.file.exists() else ""
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.file} is not text of rows: {error}") from None
        return text[: text.rfind("\n") + 1].splitlines()

    def find(self, recipe: Recipe) -> Row | None:
        """The row of a recipe, if it has been run."""
        return next((row for row in self.rows() if row.hash == recipe.hash), None)

    def append(self, row: Stored) -> None:
        """Add a row: on the disk when this returns, and never half a line between two others.

        A line that an earlier crash cut off is removed first: its run is simply done again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        written = json.dumps(to_json(row), allow_nan=False, separators=(",", ":"))
        line = memoryview(written.encode() + b"\n")
        with open(self.file, "a+b", buffering=0) as file:  # nothing is left to be written later
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            whole = text.rfind(b"\n") + 1
            file.truncate(whole)
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), whole)
                raise

    def run_folder(self, hash: str) -> Path:
        """Where the files of a run are."""
        return self.folder / "runs" / hash

    @contextmanager
    def claim(self, recipe: Recipe) -> Iterator[Path]:
        """The run's folder, for one process at a time; whoever comes second waits for the first.

        What a killed process had half written there is removed.
        """
        folder = self.run_folder(recipe.hash)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for partial in folder.glob(".*"):
                partial.unlink(missing_ok=True)
            yield folder
