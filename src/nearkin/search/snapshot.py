"""Paths, labels and vectors of a small index in a file beside its table: with it a search from the
shell imports pyarrow alone, as LanceDB's import takes longer than a search of some thousand items.

The file names the state of the table that it was made of, and counts for that state alone.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa

from nearkin.files import write_whole
from nearkin.search.store import TABLE

NAME = "items.arrow"
MOST = 20_000  # items: of more, the import of LanceDB is the smaller part
COLUMNS = ("path", "label", "vector")
STATE = b"nearkin.state"


def state_of(folder: Path) -> str:
    """What every commit to the table changes: the names of its versions. "" where it has none."""
    versions = folder / f"{TABLE}.lance" / "_versions"
    names = sorted(path.name for path in versions.iterdir()) if versions.is_dir() else []
    return hashlib.sha256("\n".join(names).encode()).hexdigest() if names else ""


def write_snapshot(folder: Path, store: Any) -> bool:
    """Write the file anew, unless the table is too large, or somebody changes it meanwhile."""
    state = state_of(folder)
    if not state or store.count() > MOST:
        (folder / NAME).unlink(missing_ok=True)
        return False
    items = store.scan(COLUMNS).replace_schema_metadata({STATE: state.encode()})
    if state_of(folder) != state:
        return False

    def write(file: Any) -> None:
        with pa.ipc.new_file(file, items.schema) as out:
            out.write_table(items)

    write_whole(folder / NAME, write)
    return True


def read_snapshot(folder: Path) -> pa.Table | None:
    """The items, ordered by path; None where there is no such file, or not of the present state."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with pa.OSFile(str(path)) as file:
            items = pa.ipc.open_file(file).read_all()
        items.validate(full=True)
    except (pa.ArrowException, OSError):  # cut off: the table itself has all of it
        return None
    state = (items.schema.metadata or {}).get(STATE, b"").decode(errors="replace")
    fits = items.schema.names == [*COLUMNS] and state == state_of(folder)
    return items if fits else None


def among(items: pa.Table, label: str | None) -> pa.Table:
    """The items with a label, or all."""
    if label is None:
        return items
    return items.filter(pa.array([each == label for each in items["label"].to_pylist()]))
