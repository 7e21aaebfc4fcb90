"""Photographs of folders: which files are pictures, their labels, and what was left out and why."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path
from urllib.parse import unquote_to_bytes

from nearkin.data.pictures import readable_endings

MACHINES = {"__macosx", "@eadir", ".@__thumb", "#recycle", "$recycle.bin", "lost+found"}
"""Folders that systems and storage boxes make, in lower case."""
TABLES = {".csv", ".tsv"}
LABELS = ("none", "parent", "top", "nested")


@dataclass(frozen=True)
class Photo:
    """One file: where it is, how large, when it was changed (ns since 1970; see `changed_at`), and
    its class."""

    path: str
    size: int
    mtime: int
    label: str | None = None


@dataclass
class Found:
    """The photographs of some paths, ordered by path, and how many files of which kind were not."""

    photos: list[Photo]
    left_out: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """Counts in a sentence."""
        rest = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.left_out.items()))
        return f"{len(self.photos):,} photographs" + (f"; left out: {rest}" if rest else "")


def changed_at(status: os.stat_result) -> int:
    """When a file was last changed: where another one took its place and its time, when that was.

    What only looks changed so is read, and not embedded again.
    """
    return max(status.st_mtime_ns, status.st_ctime_ns)


def find(sources: Iterable[str | Path], labels: str = "none", label: str | None = None) -> Found:
    """The photographs of files and folders, deeper folders included.

    Args:
        sources: files, or folders that are searched to any depth; links to folders are followed
            once; or .csv files, whose columns path and class name photographs and their classes.
        labels: what a photograph of a folder is called: none; parent, its own folder's name; top,
            the first folder below the source; nested, all folders from the source on (a/b).
        label: the one class of all of them, whatever `labels` says.

    Raises:
        ValueError: a source does not exist.
    """
    if labels not in LABELS:
        raise ValueError(f"labels must be one of {', '.join(LABELS)}, got {labels!r}")
    found, left_out, endings = {}, Counter(), readable_endings()
    for source in sources:
        root = Path(source).expanduser().absolute()
        if not (root.is_file() or root.is_dir()):
            raise ValueError(f"{root}: no such file or folder")
        if root.suffix.lower() in TABLES and root.is_file():
            for path, kind in listed(root):
                status = path.stat()
                name, size = stored(path), status.st_size
                found[name] = Photo(name, size, changed_at(status), composed(label or kind))
            continue
        files = [root] if root.is_file() else walk(root, left_out)
        for path in files:
            kind = unusable(path, endings)
            if kind:
                left_out[kind] += 1
                continue
            name = stored(path)
            given = composed(label) if label else named(path, root, labels)
            status = path.stat()
            found[name] = Photo(name, status.st_size, changed_at(status), given)
    return Found([found[name] for name in sorted(found)], left_out)


def find_some(sources: Sequence[str | Path], labels: str) -> Found:
    """The same, of which there must be one."""
    found = find(sources, labels)
    if not found.photos:
        raise ValueError(f"{', '.join(map(str, sources))}: no photograph to make an index of")
    return found


def listed(table: Path) -> Iterator[tuple[Path, str]]:
    """The photographs of a CSV file, beside which relative paths begin, and their classes."""
    from nearkin.data.sets.tables import CLASS, PATH, column, expanded, read_lines  # with torch

    name, seen = str(table), {}
    lines = read_lines(table, name)
    where, kind = (column(list(lines[0][1]), names, name) for names in (PATH, CLASS))
    for number, row in lines:
        at, label = ((row[key] or "").strip() for key in (where, kind))
        path = (table.parent / expanded(at)).absolute()
        if not at or not label or not path.is_file():
            raise ValueError(
                f"{name}, line {number}: wanted a file and a class, got {at!r}, {label!r}"
            )
        if seen.setdefault(path, label) != label:
            raise ValueError(f"{name}, line {number}: {at} has two classes")
        yield path, label


def walk(root: Path, left_out: Counter[str]) -> Iterator[Path]:
    """Every file below a folder; hidden folders and those of storage boxes are left out."""
    seen = set()
    for folder, below, files in os.walk(root, followlinks=True, onerror=refuse):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link back to a folder above
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        ours = [name for name in below if name[0] != "." and name.lower() not in MACHINES]
        left_out["hidden or system folders"] += len(below) - len(ours)
        below[:] = sorted(ours)
        yield from (Path(folder) / name for name in sorted(files))
    left_out += Counter()  # no zeros
    for kind in [kind for kind, count in left_out.items() if not count]:
        del left_out[kind]


def refuse(error: OSError) -> None:
    """A folder that cannot be read now is an error: its photographs are not gone."""
    raise error


def unusable(path: Path, endings: Collection[str]) -> str:
    """Why a file is no photograph of these endings, as a kind to be counted; "" of one that may
    be."""
    if path.name.startswith("."):
        return "hidden files"
    if path.suffix.lower() not in endings:
        return f"{path.suffix.lower() or 'files without an ending'} files".replace(
            "files files", "files"
        )
    if not path.is_file():
        return "links to nothing and special files"
    return "" if path.stat().st_size else "empty files"


def named(path: Path, root: Path, labels: str) -> str | None:
    """The class of a file, from the folders between it and the root."""
    folders = path.relative_to(root).parts[:-1] if root.is_dir() else ()
    match labels:
        case "none":
            return None
        case "parent":
            return composed(path.parent.name)
        case "top":
            return composed(folders[0]) if folders else composed(root.name)
        case _:
            return composed("/".join(folders) or root.name)


def composed(name: str) -> str:
    """A name in NFC, so that it is one name however a file system spells it; unreadable bytes as
    \\xNN."""
    plain = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", plain)


def stored(path: Path) -> str:
    """A path as text: as it is, or as file:///a/caf%E9.png where its bytes are no UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.as_uri()
    return str(path)


def file_of(name: str) -> Path:
    """The path that `stored` made text of."""
    if name.startswith("file://"):
        return Path(os.fsdecode(unquote_to_bytes(name.removeprefix("file://"))))
    return Path(name)


def digest(name: str) -> str:
    """SHA-256 of a stored path's bytes."""
    with open(file_of(name), "rb") as file:
        return file_digest(file, "sha256").hexdigest()
