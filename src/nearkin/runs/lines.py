"""The lines of a file of rows: where each lies, by its hash, and parsed when it is asked for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nearkin.files import open_regular, parse_json
from nearkin.runs.line_index import Entry, Index, State, read_index, state_of
from nearkin.runs.migrate import migrated
from nearkin.runs.row import Stored, from_json

HEAD = re.compile(rb'\{\s*"schema":\s*[2-9]\d*,\s*"hash":\s*"([\w-]+)"')
"""How a line begins that was written under the hash that it has today."""


class Lines:
    """The whole lines of a file of rows: where they lie, and what those hold that were asked for.

    entries: of each line its start, length, number in the file and hash of today.
    end: bytes of the file up to the end of its last whole line.
    ended: whether that one has its line break.

    Raises:
        ValueError: a line is no row, with the file and the line's number; of a line that begins as
            rows of today do, once it is asked for.
    """

    def __init__(self, file: Path):
        self.file = file
        self.entries: list[Entry] = []
        self.parsed: dict[int, Stored] = {}
        self.places: dict[str, list[int]] = {}  # of each hash, its lines
        self.renamed: dict[str, str] = {}  # hash of before -> hash of today
        self.end, self.ended = 0, True
        self.before = False  # whether lines are there that were written under another schema
        self.index: Index | None = None  # that the lines were read from

    @classmethod
    def read(cls, file: Path, text: bytes) -> Lines:
        """The lines of a file's text."""
        lines = cls(file)
        whole = whole_lines(text)
        lines.end, lines.ended = min(len(text), len(whole)), len(whole) <= len(text)
        found, start = [], 0
        for number, line in enumerate(whole.splitlines(keepends=True), 1):
            if line.strip():
                found.append((start, len(line), number, HEAD.match(line)))
            start += len(line)
        old = {
            i: hashes(text[start : start + length], file, number)
            for i, (start, length, number, head) in enumerate(found)
            if not head
        }
        lines.before = bool(old)
        lines.rename(old, {i: text[found[i][0] : sum(found[i][:2])] for i in old})
        lines.add(
            Entry(start, length, number, old[i][1] if head is None else head[1].decode())
            for i, (start, length, number, head) in enumerate(found)
        )
        return lines

    def add(self, entries: Any) -> None:
        """Know of these lines too, which stand below the others."""
        for entry in entries:
            self.places.setdefault(entry.hash, []).append(len(self.entries))
            self.entries.append(entry)

    def rename(self, old: dict[int, tuple[str, str, str]], texts: Mapping[int, bytes]) -> None:
        """Note which hashes of before are others today: where options are now written in one way,
        and of what started from a run for which that holds, and so on."""
        for _ in range(len(old)):  # generations at most
            self.renamed = {was: new for was, new, _ in old.values() if was != new}
            later = {}
            for i, (was, new, start) in old.items():
                if start in self.renamed:
                    raw = parse_json(texts[i], str(self.file))
                    hash = migrated(raw, self.renamed)["hash"]
                    later |= {i: (was, hash, start)} if hash != new else {}
            if not later:
                break
            old |= later

    def get(self, i: int, text: bytes | None = None) -> Stored:
        """The row or the measurement of a line, whose text is read where it is not given."""
        if i not in self.parsed:
            entry = self.entries[i]
            if text is None:
                with open_regular(self.file) as file:
                    file.seek(entry.start)
                    text = file.read(entry.length)
            try:
                raw = parse_json(text, str(self.file))
            except ValueError:
                raise refused(self.file, entry.number, text) from None
            try:
                found = from_json(migrated(raw, self.renamed))
            except ValueError as error:
                raise refused(self.file, entry.number, text, str(error)) from None
            if found.hash != entry.hash:
                raise ValueError(f"{self.file} has changed while it was read: try again")
            self.parsed[i] = found
        return self.parsed[i]

    def of_hash(self, hash: str) -> list[Stored]:
        """What the lines of this hash hold, in their order; a hash of before is one as well."""
        return [self.get(i) for i in self.places.get(self.renamed.get(hash, hash), [])]

    def all(self) -> list[Stored]:
        """What all lines hold."""
        if len(self.parsed) == len(self.entries):
            return [self.parsed[i] for i in range(len(self.entries))]
        with open_regular(self.file) as file:
            text = memoryview(file.read(self.end))
        spans = [(entry.start, entry.start + entry.length) for entry in self.entries]
        return [self.get(i, bytes(text[start:end])) for i, (start, end) in enumerate(spans)]


def hashes(line: bytes, file: Path, number: int) -> tuple[str, str, str]:
    """Of a line of before the hash, the hash of today, and the start; known from the last time that
    the same line was read."""
    digest = hashlib.blake2b(line, digest_size=16).digest()
    if digest not in HASHES:
        try:
            raw = parse_json(line, str(file))
        except ValueError:
            raise refused(file, number, line) from None
        row = migrated(raw)
        recipe = row.get("recipe") if isinstance(row, dict) else None
        start = recipe.get("start", "") if isinstance(recipe, dict) else ""
        was, now = (found.get("hash") if isinstance(found, dict) else 0 for found in (raw, row))
        if isinstance(was, str) and isinstance(now, str):
            HASHES[digest] = (was, now, str(start))
        else:
            try:
                from_json(row)  # says what is wrong with it
            except ValueError as error:
                raise refused(file, number, line, str(error)) from None
            raise refused(file, number, line) from None
    return HASHES[digest]


def refused(file: Path, number: int, line: bytes, why: str = "") -> ValueError:
    """What is said of a line that is no row."""
    shown = why or repr(line.strip()[:60].decode(errors="replace"))
    return ValueError(f"{file}: line {number} is not a row: {shown}")


HASHES: dict[bytes, tuple[str, str, str]] = {}
"""Digest of a line of before -> its hash, its hash of today, and its start."""
KNOWN: dict[Path, tuple[State | None, Lines]] = {}
"""File of rows -> its state when it was read, and its lines."""


def lines_of(file: Path, index: Path) -> Lines:
    """The lines of a file of rows, by its index where that holds; read again only where the file
    has changed, and then only what is new of the index."""
    path = file.absolute()
    state = state_of(path)
    before, lines = KNOWN.get(path, (None, None))
    if lines is not None and before == state:
        return lines
    last = lines.index if lines else None
    if state is None:
        lines = Lines(file)
    elif found := read_index(index, state, last):
        if lines is None or found is not last:
            lines = Lines(file)
            lines.index = found
        lines.add(found.entries[len(lines.entries) :])
        lines.end, lines.ended = state.size, True
    else:
        with open_regular(path) as opened:
            lines = Lines.read(file, opened.read())
    KNOWN[path] = state, lines
    return lines


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
