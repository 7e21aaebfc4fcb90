"""A folder of rows: one JSON line for each (runs/row.py), stored whole or not at all."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from nearkin.files import expanded, open_regular, parse_json, sync_folder, write_whole
from nearkin.leases import Claims, Leases, Taken
from nearkin.names import refuse_no_text
from nearkin.runs.line_index import WORTH, Entry, append_index, state_of, write_index
from nearkin.runs.lines import Lines, lines_of
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row, Stored, from_json, to_json

PATIENCE = 5.0  # seconds that a stored row waits for the file of all, where another is at it


class Store:
    """A folder of rows and of what their runs left: rows.jsonl, and runs/HASH/ for each run.

    Rows of one recipe that was run on several data have one hash and several keys; the second and
    those after it have their files in runs/KEY/.

    Several processes, and machines that share the folder, may store rows at once: whoever holds the
    lease of .rows.jsonl.parts/ writes into rows.jsonl. Who does not leaves each row there as a file
    of its own, which the next holder moves; the index lies there too (line_index.py).
    """

    def __init__(
        self, folder: Path | str, name: str = "rows.jsonl", claims: Claims | None = None
    ) -> None:
        refuse_no_text("the folder of results", folder)
        self.folder = expanded(folder)
        self.file = self.folder / name
        self.parts = self.folder / f".{name}.parts"
        self.index = self.parts / "index"
        self.claims: Claims = claims or Leases()

    def stored(self) -> dict[str, Stored]:
        """Key -> row or measurement, the first of each key; a line that was cut off is neither.

        Raises: ValueError with file and line, where a line is neither.
        """
        parts = self.apart()  # read first: what is moved meanwhile is then found in the file
        found: dict[str, Stored] = {}
        for one in [*self.lines().all(), *parts]:
            found.setdefault(one.key, one)
        return found

    def rows(self) -> list[Row]:
        """The rows of all runs, the first of each key."""
        return [row for row in self.stored().values() if isinstance(row, Row)]

    def of_hash(self, hash: str) -> list[Stored]:
        """Rows and measurements of this hash, the first of each key, in their order."""
        parts = self.apart(hash)
        found: dict[str, Stored] = {}
        for one in [*self.lines().of_hash(hash), *parts]:
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
        """What the file of rows holds now."""
        return lines_of(self.file, self.index)

    def apart(self, hash: str = "") -> list[Stored]:
        """Rows and measurements that are still in files of their own, of this hash or all."""
        try:
            names = os.listdir(self.parts)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = sorted(n for n in names if n.startswith(hash) and n.endswith(".json"))
        found = []
        for name in names:
            with suppress(FileNotFoundError):  # moved meanwhile
                found.append(read_part(self.parts / name))
        return [one for one in found if not hash or one.hash == hash]

    def append(self, *rows: Stored) -> None:
        """Add rows: on the disk when this returns, and none of them half.

        One whose key is stored already is not stored twice. A line that an earlier crash cut off is
        removed: its run is simply done again. A whole one that only lacks its line break, as
        editors leave it, gets it.
        """
        own = {row.key: (row, text_of(row)) for row in rows}
        # where another is at it, or an error is to be told, the rows are made safe first
        with suppress(OSError, ValueError), self.claims(self.parts, wait=False):
            self.write(own)
            return
        paths = {self.parts / f"{key}.json": text for key, (_, text) in own.items()}
        for path, text in paths.items():
            write_whole(path, lambda file, text=text: file.write(text))
        until, pause = time.monotonic() + PATIENCE, 0.002
        while any(path.exists() for path in paths):
            try:
                with self.claims(self.parts, wait=False):
                    self.write()
            except Taken:
                if time.monotonic() > until:  # they stay where they are, and are read from there
                    return
                time.sleep(pause)
                pause = min(2 * pause, 0.2)

    def write(self, own: Mapping[str, tuple[Stored, bytes]] = MappingProxyType({})) -> None:
        """Write the rows that are in files of their own into the file of all, in the order in which
        they came, and behind them these: key -> row and its text."""
        paths = [path for path in self.parts.iterdir() if path.suffix == ".json"]
        paths = sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name))
        state, before = state_of(self.file), self.lines()
        apart = [(read_part(path), path.read_bytes()) for path in paths]
        each = {row.key: (row, text) for row, text in apart} | dict(own)
        new = [
            (row, text + b"\n")
            for key, (row, text) in each.items()
            if key not in {one.key for one in before.of_hash(row.hash)}
        ]
        if new and state_of(self.file) != state:  # we slept, and another has taken over
            raise Taken(f"{self.file} was written by another process")
        if new:
            rows, texts = [row for row, _ in new], [text for _, text in new]
            start = self.write_lines(before, texts)
            self.write_entries(before, rows, texts, start)
        for path in paths:
            path.unlink(missing_ok=True)

    def write_lines(self, before: Lines, texts: list[bytes]) -> int:
        """Write these lines at the end of the file, all or none; where the first begins."""
        ending = b"" if before.ended else b"\n"
        text = memoryview(ending + b"".join(texts))
        with open(self.file, "r+b" if self.file.exists() else "x+b", buffering=0) as file:
            file.truncate(before.end)
            file.seek(before.end)
            try:
                while text:
                    text = text[file.write(text) :]
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), before.end)
                raise
        sync_folder(self.folder)
        return before.end + len(ending)

    def write_entries(
        self, before: Lines, rows: list[Stored], texts: list[bytes], start: int
    ) -> None:
        """Write where the lines lie that were just written into the index."""
        state = state_of(self.file)
        if before.before or state is None or state.size < WORTH:
            return
        number = before.entries[-1].number if before.entries else 0
        entries = []
        for row, text in zip(rows, texts, strict=True):
            number += 1
            entries.append(Entry(start, len(text), number, row.hash))
            start += len(text)
        if before.index:
            append_index(self.index, entries, state)
        else:
            write_index(self.index, [*before.entries, *entries], state)

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
    def claim(self, key: str, wait: bool = True) -> Iterator[Path]:
        """A run's folder, for one process at a time; whoever comes second waits for the first, or
        with wait=False has a `Taken`. What a process that was killed had half written is removed.
        """
        while True:
            folder = self.run_folder(key)
            with self.claims(folder, wait):
                if self.run_folder(key) == folder:  # else another run came to stand there
                    sweep(folder)
                    yield folder
                    return

    def taken(self, hash: str) -> bool:
        """Whether another process is at a run of this recipe, or at this measurement."""
        return self.claims.taken(self.folder / "runs" / hash)


def text_of(row: Stored) -> bytes:
    """A row as it is stored, without its line break."""
    return json.dumps(to_json(row), allow_nan=False, separators=(",", ":")).encode()


def read_part(path: Path) -> Stored:
    """The row or the measurement in a file of its own."""
    with open_regular(path) as file:
        text = file.read()
    try:
        return from_json(parse_json(text, str(path)))
    except ValueError as error:
        raise ValueError(f"{path} is not a row: {error}") from None


def sweep(folder: Path) -> None:
    """Remove what a process that was killed had half written in a folder of its own."""
    for partial in folder.glob(".*"):
        if partial.is_file():
            with suppress(FileNotFoundError):
                partial.unlink()
