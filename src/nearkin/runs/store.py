"""A folder of rows: one JSON line for each (runs/row.py), appended whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from nearkin.files import expanded, sync_folder
from nearkin.runs.claim import Claims, FileClaim
from nearkin.runs.lines import Lines, index_of, whole_lines
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row, Stored, to_json


class Store:
    """A folder of rows and of what their runs left: rows.jsonl, and runs/HASH/ for each run.

    Rows of one recipe that was run on several data have one hash and several keys; the second and
    those after it have their files in runs/KEY/.
    """

    def __init__(
        self, folder: Path | str, name: str = "rows.jsonl", claims: Claims = FileClaim
    ) -> None:
        self.folder = expanded(folder)
        self.file = self.folder / name
        self.claims = claims

    def stored(self) -> dict[str, Stored]:
        """Key -> row or measurement, the first of each key; a line that was cut off is neither.

        Raises: ValueError with file and line, where a line is neither.
        """
        found: dict[str, Stored] = {}
        for one in self.lines().all():
            found.setdefault(one.key, one)
        return found

    def rows(self) -> list[Row]:
        """The rows of all runs, the first of each key."""
        return [row for row in self.stored().values() if isinstance(row, Row)]

    def of_hash(self, hash: str) -> list[Stored]:
        """Rows and measurements of this hash, the first of each key, in their order."""
        found: dict[str, Stored] = {}
        for one in self.lines().of_hash(hash):
            found.setdefault(one.key, one)
        return list(found.values())

    def find(self, recipe: Recipe) -> Row | None:
        """The newest row of a recipe, if it has been run, on whatever data."""
        found = self.of_hash(recipe.hash)
        return next((row for row in reversed(found) if isinstance(row, Row)), None)

    def row(self, key: str) -> Row | None:
        """The row of this key, if there is one."""
        found = self.of_hash(key.partition("-")[0])
        return next((row for row in found if isinstance(row, Row) and row.key == key), None)

    def lines(self) -> Lines:
        """What the file holds now."""
        return index_of(self.file)

    def append(self, row: Stored) -> None:
        """Add a row: on the disk when this returns, and never half a line between two others.

        A line that an earlier crash cut off is removed first: its run is simply done again. A whole
        one that only lacks its line break, as editors leave it, gets it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        written = json.dumps(to_json(row), allow_nan=False, separators=(",", ":"))
        with (
            FileLock(self.folder / f".{self.file.name}.lock"),
            open(self.file, "a+b", buffering=0) as file,  # nothing is left to be written later
        ):
            file.seek(0)
            text = file.read()
            before = min(len(text), len(whole_lines(text)))
            ending = b"" if text[:before].endswith(b"\n") or not before else b"\n"
            line = memoryview(ending + written.encode() + b"\n")
            file.truncate(before)
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), before)
                raise
        sync_folder(self.folder)

    def folder_of(self, row: Row) -> Path:
        """Where the files of a row's run are."""
        return self.folder / row.files.folder

    def run_folder(self, key: str) -> Path:
        """Where the files of a run belong: runs/HASH, or runs/KEY where a run of the same recipe on
        other data has them there."""
        hash = key.partition("-")[0]
        rows = [row for row in self.of_hash(hash) if isinstance(row, Row)]
        own = next((row.files.folder for row in rows if row.key == key), "")
        taken = any(row.files.folder == f"runs/{hash}" for row in rows)
        return self.folder / (own or f"runs/{key if taken else hash}")

    @contextmanager
    def claim(self, key: str) -> Iterator[Path]:
        """A run's folder, for one process at a time; whoever comes second waits for the first."""
        while True:
            folder = self.run_folder(key)
            with self.claims(folder):
                if self.run_folder(key) == folder:  # else another run came to stand there
                    yield folder
                    return
