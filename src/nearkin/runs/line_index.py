"""The index of a file of rows: where each line lies and what its hash is, in a file beside it.

    nearkin-lines 1 ID          a name that no other index has
    START LENGTH NUMBER HASH    of each line its bytes, its number in the file, and its hash
    = INODE SIZE MTIME CTIME    the file as it was when the lines above were all of its lines

Lines are appended as rows are. The index holds for a file in the state of its last line, and for no
other: whoever finds another state reads the file itself, and the next who writes a row writes the
index anew.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from nearkin.files import IrregularFile, open_regular, write_whole

FORMAT = "nearkin-lines 1"
WORTH = 1_000_000
"""Bytes of a file of rows from which on it has an index; a smaller one is read in no time."""


class Entry(NamedTuple):
    """Where one line lies."""

    start: int
    length: int
    number: int
    hash: str


class State(NamedTuple):
    """What changes whenever a file does."""

    inode: int
    size: int
    mtime: int
    ctime: int


def state_of(path: Path) -> State | None:
    """The state of a file; None of one that is not there."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return State(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@dataclass
class Index:
    """An index as far as it has been read.

    position: bytes of it.
    """

    id: str
    entries: list[Entry]
    position: int


def read_index(path: Path, state: State, known: Index | None = None) -> Index | None:
    """The index of a file in this state; None where there is none that holds.

    known: what was read of it before, to which what is new is added.
    """
    try:
        with open_regular(path) as file:
            id = file.readline(100).decode().removeprefix(FORMAT).strip()
            if known is None or known.id != id:
                known = Index(id, [], file.tell())
            file.seek(known.position)
            text = file.read()
        *lines, last = text.decode().splitlines() or [""]
        if not id or (last and last != written(state)):
            return None
        end = sum(known.entries[-1][:2]) if known.entries else 0
        fresh = []
        for line in lines:
            if line[0] == "=":
                continue
            start, length, number, hash = line.split(" ")
            entry = Entry(int(start), int(length), int(number), hash)
            if entry.start < end or entry.length < 1:
                return None
            end = sum(entry[:2])
            fresh.append(entry)
    except (FileNotFoundError, IrregularFile, ValueError, IndexError):
        return None
    if end > state.size or not (fresh or last or known.entries):
        return None
    known.entries += fresh
    known.position += len(text)
    return known


def write_index(path: Path, entries: Sequence[Entry], state: State) -> None:
    """Write an index anew."""
    text = f"{FORMAT} {uuid4().hex}\n" + block(entries, state)
    write_whole(path, lambda file: file.write(text.encode()))


def append_index(path: Path, entries: Sequence[Entry], state: State) -> None:
    """Add lines to an index that held before they were written."""
    with open(path, "ab") as file:
        file.write(block(entries, state).encode())


def block(entries: Sequence[Entry], state: State) -> str:
    """Lines of an index, and the state that they belong to."""
    lines = [f"{start} {length} {number} {hash}\n" for start, length, number, hash in entries]
    return "".join(lines) + written(state) + "\n"


def written(state: State) -> str:
    """A state as a line."""
    return f"= {' '.join(map(str, state))}"
