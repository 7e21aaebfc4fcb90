"""What a person has decided of single photographs: kept, dropped, or of another class.

    decisions.csv   path,class,action   action: keep, relabel or drop

`nearkin explore` writes it; an index keeps what it was given, so that the folders' own labels do
not undo it at the next update.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nearkin.files import read_json, write_whole
from nearkin.search.photos import Photo, composed
from nearkin.search.store import AT_ONCE, PLAIN, table_of, vectors_of
from nearkin.search.values import Changes

DECIDED = "decisions.json"
ACTIONS = ("keep", "relabel", "drop")


def read_decisions(path: Path) -> dict[str, tuple[str, str]]:
    """Path of a photograph -> (action, class), of a CSV file.

    Raises:
        ValueError: a column or a class is missing, an action is none, or a path has two.
    """
    from nearkin.data.sets.tables import column, read_lines  # which imports torch

    name, found = str(path), {}
    lines = read_lines(path, name)
    where, kind, what = (
        column(list(lines[0][1]), (each,), name) for each in ("path", "class", "action")
    )
    for number, row in lines:
        at, label, action = (composed((row[key] or "").strip()) for key in (where, kind, what))
        line = f"{name}, line {number}"
        if not at or action not in ACTIONS:
            raise ValueError(
                f"{line}: wanted a path and keep, relabel or drop, got {at!r}, {action!r}"
            )
        if action == "relabel" and not label:
            raise ValueError(f"{line}: relabel wants a class")
        if found.setdefault(at, (action, label)) != (action, label):
            raise ValueError(f"{line}: {at} has two decisions")
    return found


def is_decision(value: object) -> bool:
    """Whether a JSON value is an action and a class."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    action, label = value
    return action in ACTIONS and isinstance(label, str)


class Decisions:
    """The decisions that an index keeps, in a JSON file beside its table."""

    def __init__(self, path: Path):
        self.path = path
        self.held: dict[str, tuple[str, str]] = {}
        if path.is_file():
            stored = read_json(path)
            if not isinstance(stored, dict) or not all(map(is_decision, stored.values())):
                raise ValueError(f"{path}: wanted an action and a class by path")
            self.held = {at: (action, label) for at, (action, label) in stored.items()}

    def add(self, more: dict[str, tuple[str, str]]) -> None:
        """Take further decisions; of two about one photograph the later holds."""
        self.held |= more
        text = json.dumps(self.held, ensure_ascii=False, indent=0)
        write_whole(self.path, lambda file: file.write(text.encode()))

    def applied(self, photos: Iterable[Photo], left_out: Counter[str]) -> list[Photo]:
        """The photographs without those that were dropped, with the classes that were given."""
        found = []
        for photo in photos:
            action, label = self.held.get(photo.path, ("keep", ""))
            if action == "drop":
                left_out["dropped by decision"] += 1
            else:
                found.append(replace(photo, label=label) if action == "relabel" else photo)
        return found


def carry_out(index: Any, path: Path) -> Changes:
    """Change an index as a file of decisions says, now and at every update from now on.

    Raises:
        ValueError: the file is none of decisions, or names a photograph that is not in the index.
    """
    wanted = read_decisions(path)
    held = {row["path"]: row for row in index.store.scan([*PLAIN]).to_pylist()}
    absent = [at for at in wanted if at not in held]
    if absent:
        raise ValueError(
            f"{path}: of {len(wanted):,} photographs {len(absent):,} are not in {index.path}, "
            f"such as {absent[0]}"
        )
    Decisions(index.path / DECIDED).add(wanted)
    changes = Changes()
    gone = [at for at, (action, _) in wanted.items() if action == "drop"]
    index.store.delete(gone)
    changes.removed = len(gone)
    named = [
        at for at, (action, to) in wanted.items() if action == "relabel" and to != held[at]["label"]
    ]
    for start in range(0, len(named), AT_ONCE):
        rows = index.store.scan(
            [*PLAIN, "thumbnail", "vector"], paths=named[start : start + AT_ONCE]
        )
        relabelled = [{**row, "label": wanted[row["path"]][1]} for row in rows.to_pylist()]
        index.store.put(table_of(relabelled, vectors_of(rows)))
    changes.relabelled = len(named)
    changes.unchanged = len(wanted) - len(gone) - len(named)
    return changes
