"""tars:PATH: pictures in tar archives, as webdataset packs them; nothing is unpacked."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from nearkin.data.archives import BROKEN, MOST, refuse_without_end
from nearkin.data.pictures import BadPicture, read, readable_endings
from nearkin.data.request import Absent, Request
from nearkin.data.sets.listings import Listing, assembled, in_halves
from nearkin.data.sets.tree import class_name
from nearkin.data.splits import Splits
from nearkin.data.terms import holds_others_pictures
from nearkin.files import open_regular, parse_json

LARGEST = 500_000_000  # bytes of one picture in an archive
NOTE = 1_000_000  # bytes of what says its class
KEYS = ("class", "label", "category", "cls")
"""What the class may be called in a member of JSON."""


class Member(NamedTuple):
    """Where a picture lies."""

    archive: Path
    start: int
    size: int


@dataclass(frozen=True)
class InTars:
    """The pictures of tar archives, by archive/member."""

    members: dict[str, Member]

    def read(self, file: str, channels: int, short_side: int) -> np.ndarray:
        archive, start, size = self.members[file]
        path = archive / PurePosixPath(file).relative_to(archive.name)
        if not 0 < size <= LARGEST:
            raise BadPicture(f"{path}: {'too large' if size else 'empty'}")
        with open_regular(archive) as opened:
            opened.seek(start)
            return read(path, channels, short_side, file=BytesIO(opened.read(size)))

    def state(self, file: str) -> tuple[int, ...]:
        archive, start, size = self.members[file]
        found = archive.stat()
        return start, size, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def tars(request: Request) -> Splits:
    """The pictures of a tar archive, or of all *.tar in a folder, ordered by archive and place.

    The members of one item share their name up to its first dot: 0001.jpg with 0001.cls, a text
    that is the class, or with 0001.json, which has it as class, label, category or cls. Without
    either the folder in which the member lies is the class. The first half of the sorted classes
    trains, and the rest tests. Archives are not compressed, as webdataset's are not.

    Source: the format of https://github.com/webdataset/webdataset.
    """
    root = request.root
    name = f"tars:{root}"
    archives = sorted(root.glob("*.tar")) if root.is_dir() else [root]
    if not root.exists() or not archives:
        raise Absent(f"{name}: no such file, nor a folder with .tar archives")
    members: dict[str, Member] = {}
    pairs = []
    for archive in archives:
        for picture, kind, member in pictures_of(archive):
            known = f"{archive.name}/{picture}"
            if known in members:
                raise ValueError(f"{archive}: {picture} is there twice")
            members[known] = member
            pairs.append((known, kind))
    if not pairs:
        raise ValueError(f"{name}: no pictures")
    listings = in_halves(name, Listing.of(pairs))
    return assembled(
        name,
        archives[0].parent,
        listings,
        request,
        variant="in tar archives",
        showable=not (request.private or holds_others_pictures(archives[0].parent)),
        halved=True,
        source=InTars(members),
    )


def pictures_of(archive: Path) -> Iterator[tuple[str, str, Member]]:
    """(name, class, place) of each picture of an archive, in their order.

    Raises: ValueError, where it is no whole archive, or a member is neither file nor folder.
    """
    endings = readable_endings()
    kinds: dict[str, str] = {}
    found: list[tuple[str, str, Member]] = []
    try:
        with open_regular(archive) as file, tarfile.open(fileobj=file, mode="r:") as source:
            whole = archive.stat().st_size
            for count, member in enumerate(source):
                refuse(member, archive, whole, count)
                if not member.isfile():
                    continue
                path = PurePosixPath(member.name)
                base, _, ending = path.name.partition(".")
                key, ending = str(path.parent / base), f".{ending.lower()}"
                if ending in (".cls", ".json"):
                    kind = class_in(source, member, ending)
                    if kind:
                        kinds[key] = kind
                elif ending in endings:
                    found.append(
                        (member.name, key, Member(archive, member.offset_data, member.size))
                    )
                source.members.clear()  # type: ignore[attr-defined] - else all stay in memory
            refuse_without_end(source)
    except BROKEN as error:
        if isinstance(error, Refused):
            raise ValueError(f"{archive}: {error}") from None
        raise ValueError(f"{archive}: not a whole tar archive without compression") from None
    for name, key, place in found:
        kind = kinds.get(key) or class_name(PurePosixPath(name).parent.name)
        if not kind:
            raise ValueError(f"{archive}: {name} has no class: no .cls, no .json, no folder")
        yield name, kind, place


class Refused(ValueError):
    """What is wrong with a member of an archive."""


def refuse(member: tarfile.TarInfo, archive: Path, whole: int, count: int) -> None:
    """Stop at a member that cannot be read where it lies."""
    path = PurePosixPath(member.name)
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise Refused(f"{member.name!r} is a link, a device or full of holes")
    if path.is_absolute() or ".." in path.parts or not member.name.strip("/"):
        raise Refused(f"{member.name!r} points outside the archive")
    if member.isfile() and member.offset_data + member.size > whole:
        raise Refused(f"{member.name!r} is cut off")
    if count >= MOST:
        raise Refused(f"more than {MOST:,} members")


def class_in(source: tarfile.TarFile, member: tarfile.TarInfo, ending: str) -> str:
    """The class that a member says; "" where it says none."""
    if member.size > NOTE:
        raise Refused(f"{member.name!r} is too large to name a class")
    opened = source.extractfile(member)
    assert opened, "a member that is a file"
    text = opened.read(NOTE)
    if ending == ".cls":
        try:
            return class_name(text.decode("utf-8-sig").strip())
        except UnicodeDecodeError:
            raise Refused(f"{member.name!r} is no text in UTF-8") from None
    try:
        said: Any = parse_json(text, member.name)
    except ValueError as error:
        raise Refused(str(error)) from None
    values = [said.get(key) for key in KEYS] if isinstance(said, dict) else []
    return class_name(str(next((v for v in values if isinstance(v, str | int)), "")).strip())
