"""The lines of a file of rows: read once, for the hash of each, and parsed when asked for."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nearkin.files import parse_json
from nearkin.runs.migrate import migrated
from nearkin.runs.row import Stored, from_json

HEAD = re.compile(rb'\{\s*"schema":\s*[2-9]\d*,\s*"hash":\s*"([\w-]+)"')
"""How a line begins that was written under the hash that it has today."""


class Lines:
    """The lines of a file of rows as they were when they were read.

    Raises:
        ValueError: a line is no row, with the file and the line's number; of a line that begins as
            rows of today do, once it is asked for.
    """

    def __init__(self, file: Path, text: bytes):
        self.file = file
        self.lines = [(n, x) for n, x in enumerate(text.splitlines(), 1) if x.strip()]
        self.parsed: dict[int, Stored] = {}
        self.places: dict[str, list[int]] = {}  # of each hash, its lines
        self.renamed: dict[str, str] = {}  # hash of before -> hash of today
        heads = [HEAD.match(line) for _, line in self.lines]
        before = {i: self.hashes(i) for i, head in enumerate(heads) if not head}
        self.rename(before)
        for i, head in enumerate(heads):
            hash = before[i][1] if head is None else head[1].decode()
            self.places.setdefault(hash, []).append(i)

    def rename(self, before: dict[int, tuple[str, str, str]]) -> None:
        """Note which hashes of before are others today: where options are now written in one way,
        and of what started from a run for which that holds, and so on."""
        for _ in range(len(before)):  # generations at most
            self.renamed = {old: new for old, new, _ in before.values() if old != new}
            later = {}
            for i, (old, new, start) in before.items():
                if start in self.renamed:
                    hash = migrated(self.raw(i), self.renamed)["hash"]
                    later |= {i: (old, hash, start)} if hash != new else {}
            if not later:
                break
            before |= later

    def hashes(self, i: int) -> tuple[str, str, str]:
        """Of a line of before the hash, the hash of today, and the start; known from the last time
        that the same line was read."""
        _, line = self.lines[i]
        digest = hashlib.blake2b(line, digest_size=16).digest()
        if digest not in HASHES:
            raw = self.raw(i)
            row = migrated(raw)
            recipe = row.get("recipe") if isinstance(row, dict) else None
            start = recipe.get("start", "") if isinstance(recipe, dict) else ""
            try:
                HASHES[digest] = (raw["hash"], row["hash"], str(start))
            except (TypeError, KeyError):
                self.get(i)  # says what is wrong with it
                raise self.error(i) from None
        return HASHES[digest]

    def raw(self, i: int) -> Any:
        """A line's JSON value."""
        try:
            return parse_json(self.lines[i][1], str(self.file))
        except ValueError:
            raise self.error(i) from None

    def error(self, i: int, why: str = "") -> ValueError:
        """What is said of a line that is no row."""
        number, line = self.lines[i]
        shown = why or repr(line[:60].decode(errors="replace"))
        return ValueError(f"{self.file}: line {number} is not a row: {shown}")

    def get(self, i: int) -> Stored:
        """The row or the measurement of a line."""
        if i not in self.parsed:
            raw = self.raw(i)
            try:
                self.parsed[i] = from_json(migrated(raw, self.renamed))
            except ValueError as error:
                raise self.error(i, str(error)) from None
        return self.parsed[i]

    def of_hash(self, hash: str) -> list[Stored]:
        """What the lines of this hash hold, in their order; a hash of before is one as well."""
        return [self.get(i) for i in self.places.get(self.renamed.get(hash, hash), [])]

    def all(self) -> list[Stored]:
        """What all lines hold."""
        return [self.get(i) for i in range(len(self.lines))]


HASHES: dict[bytes, tuple[str, str, str]] = {}
"""Digest of a line of before -> its hash, its hash of today, and its start."""
INDEXES: dict[Path, tuple[tuple[int, ...], Lines]] = {}
"""File of rows -> its state when it was read, and its lines."""


def index_of(file: Path) -> Lines:
    """The lines of a file of rows, read again only where it has changed."""
    path = file.absolute()
    state = state_of(path)
    known, lines = INDEXES.get(path, ((), None))
    if lines is None or known != state:
        text = whole_lines(path.read_bytes()) if state else b""
        lines = Lines(file, text)
        INDEXES[path] = (state, lines)
    return lines


def state_of(path: Path) -> tuple[int, ...]:
    """What changes whenever a file that grows does; nothing of one that is not there."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def whole_lines(text: bytes) -> bytes:
    """A file's lines without the last, where that was cut off; a row that only lacks its line break
    is whole.

    >>> whole_lines(b'{"a": 1}\\n{"b": 2}'), whole_lines(b'{"a": 1}\\n{"b": ')
    (b'{"a": 1}\\n{"b": 2}\\n', b'{"a": 1}\\n')
    """
    end = text.rfind(b"\n") + 1
    try:
        whole = isinstance(parse_json(text[end:], "the last line"), Mapping)
    except ValueError:
        whole = False
    return text + b"\n" if whole else text[:end]
