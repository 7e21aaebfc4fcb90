"""The pictures in a tree of folders, and all that is there and not used, counted by kind."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nearkin.data.pictures import HEIC, readable_endings

SYSTEM = {"@eadir", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "lost+found"}
SYSTEM |= {"system volume information", "thumbs.db", "desktop.ini", ".ds_store"}
"""What systems leave among a person's files: thumbnails of a NAS, and the like."""
UNREAD = HEIC | {".arw", ".cr2", ".cr3", ".dng", ".eps", ".exr", ".hdr", ".ico", ".jp2", ".jxl"}
UNREAD |= {".mp4", ".mov", ".nef", ".orf", ".psd", ".raf", ".raw", ".rw2", ".svg", ".tga"}
"""Endings of pictures and films that are not read here."""


@dataclass
class Tree:
    """What was found below a folder.

    root: where the walk began.
    pictures: paths of the pictures below it, with slashes, sorted; links to folders are followed.
    unused: kind of what is not used -> how many.
    """

    root: Path
    pictures: list[str] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)

    @property
    def unread(self) -> dict[str, int]:
        """Pictures whose format is not read here: ending -> how many."""
        return {kind: n for kind, n in self.unused.items() if kind in UNREAD}


def walk(root: Path) -> Tree:
    """Everything below a folder, in the order of names."""
    tree, endings = Tree(root), readable_endings()
    for path, name in files_below(root, tree.unused):
        ending = PurePosixPath(name).suffix.lower()
        if hidden(name):
            tree.unused["hidden"] += 1
        elif ending in endings:
            tree.pictures.append(path)
        else:
            tree.unused[ending or "without an ending"] += 1
    tree.pictures.sort(key=lambda path: path.split("/"))
    return tree


def files_below(root: Path, unused: Counter[str]) -> Iterator[tuple[str, str]]:
    """(path below the root, name) of every file; hidden folders, and links in a circle, aside."""
    above: dict[str, set[tuple[int, int]]] = {"": {identity(root)}}
    for folder, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        here = os.path.relpath(folder, root).replace(os.sep, "/")
        here = "" if here == "." else here
        entered = []
        for name in folders:
            path = f"{here}/{name}" if here else name
            key = identity(Path(folder) / name)
            if hidden(name):
                unused["hidden"] += 1
            elif key in above[here]:
                unused["links in a circle"] += 1
            else:
                above[path] = above[here] | {key}
                entered.append(name)
        folders[:] = sorted(entered)
        for name in sorted(files):
            yield (f"{here}/{name}" if here else name), name


def identity(folder: Path) -> tuple[int, int]:
    """What a folder is known by, whatever link leads to it."""
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def refuse(error: OSError) -> None:
    """A folder that cannot be read is an error, not an empty one."""
    raise error


def hidden(name: str) -> bool:
    """Whether a name is of what no person put there: thumbnails and the like.

    >>> hidden("b.jpg"), hidden("._b.jpg"), hidden("@eaDir"), hidden("__MACOSX")
    (False, True, True, True)
    """
    return name.startswith(".") or name.lower() in SYSTEM


def class_name(name: str) -> str:
    r"""A folder's name as the name of a class: in NFC, and what is no Unicode as an escape.

    >>> class_name("e\u0301"), class_name(os.fsdecode(b"a\xff"))
    ('é', 'a\\xff')
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


READINGS: dict[str, Callable[[PurePosixPath], str]] = {
    "top": lambda folders: folders.parts[0],
    "parent": lambda folders: folders.name,
    "nested": str,
}
"""Which of the folders on the way to a picture names its class: the first, the last, or all."""


def classes_of(pictures: list[str], reading: str, below: str = "") -> list[tuple[str, str]]:
    """(path, class) of the pictures in folders below the folder `below`."""
    pairs = []
    for path in pictures:
        folders = PurePosixPath(path).relative_to(below).parent
        if folders.parts:
            pairs.append((path, class_name(READINGS[reading](folders))))
    return pairs


def doubt(pictures: list[str], below: str = "") -> str:
    """The first folder whose pictures all lie in two folders of its own or more: class, or group?

    "" where no folder is so.

    >>> doubt(["fish/trout/1.jpg", "fish/carp/1.jpg", "cats/1.jpg"])
    'fish'
    """
    inner: dict[str, set[str]] = {}
    for path in pictures:
        top, *rest = PurePosixPath(path).relative_to(below).parts
        if rest:
            inner.setdefault(top, set()).add(rest[0] if len(rest) > 1 else "")
    return next((top for top, found in inner.items() if "" not in found and len(found) > 1), "")
