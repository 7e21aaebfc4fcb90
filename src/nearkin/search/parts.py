"""An index made in parts: each by one process of any machine, then joined into one index.

    shop.parts/00003-of-00064/images.lance   the items of this part
                              part.json      once it is whole: what it holds
                              lease.N        of who is at it
    shop.photos/NAME/CLASS/                  the pictures of archives, unpacked
    shop, shop.receipt.json                  once all parts are there

A part ends between two commits of the whole, so that each batch is that of a single process.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

from nearkin.files import open_regular, read_json, write_whole
from nearkin.leases import Leases, Taken
from nearkin.search.index import Index
from nearkin.search.intake import AT_ONCE, take
from nearkin.search.photos import Photo, find
from nearkin.search.store import PLAIN, LanceStore, table_of, vectors_of

MOST = 100_000  # parts
ARCHIVE = ".tar"


@dataclass(frozen=True)
class Part:
    """What is known of one part that is done.

    key: of which photographs are embedded by which Model, in how many parts.
    photographs: of this part; items: those of them that could be read.
    """

    shard: int
    shards: int
    key: str
    model: str
    photographs: int
    items: int
    total: int
    seconds: float
    threads: int
    host: str


def photographs(sources: Sequence[Path], labels: str) -> list[Photo]:
    """The photographs of these folders and tables, in the order in which they are embedded."""
    found: dict[str, Photo] = {}
    for source in sources:
        found |= {photo.path: photo for photo in find([source], labels).photos}
    return list(found.values())


def of_part(photos: Sequence[Photo], shard: int, shards: int) -> Sequence[Photo]:
    """The photographs of one part: whole commits, as many in each part as in the others."""
    commits = -(-len(photos) // AT_ONCE)
    start, stop = (AT_ONCE * (i * commits // shards) for i in (shard, shard + 1))
    return photos[start:stop]


def folder_of(output: Path, shard: int, shards: int) -> Path:
    """Where a part and its lease are."""
    return output.with_name(f"{output.name}.parts") / f"{shard:05d}-of-{shards:05d}"


def attempt_part(
    opener: Callable[[str], Any],
    model: str,
    sources: Sequence[Path],
    labels: str,
    output: Path,
    shard: int,
    shards: int,
    leases: Leases,
) -> Part | None:
    """Embed one part, unless it is stored; None where another process is at it."""
    import torch

    folder = folder_of(output, shard, shards)
    if leases.taken(folder):
        return None
    try:
        with leases(folder, wait=False):
            opened, photos = opener(model), photographs(sources, labels)
            key = key_of(opened.identity, photos, shards)
            known = read_part(folder)
            if known and known.key == key:
                return known
            (folder / "part.json").unlink(missing_ok=True)
            note = folder / "key"  # of what the items are that a killed try has left
            if not note.exists() or note.read_text() != key:
                shutil.rmtree(folder / "images.lance", ignore_errors=True)
                write_whole(note, lambda file: file.write(key.encode()))
            began, own = perf_counter(), of_part(photos, shard, shards)
            index: Any = SimpleNamespace(store=LanceStore(folder, opened.dim), model=opened)
            take(index, list(own), lambda done, total: None)
            part = Part(
                shard,
                shards,
                key,
                opened.identity,
                len(own),
                index.store.count(),
                len(photos),
                round(perf_counter() - began, 3),
                torch.get_num_threads(),
                platform.node(),
            )
            text = json.dumps(asdict(part)) + "\n"
            write_whole(folder / "part.json", lambda file: file.write(text.encode()))
            return part
    except Taken:
        return None


def key_of(identity: str, photos: Sequence[Photo], shards: int) -> str:
    """16 hex digits of which photographs are embedded by which Model, in how many parts."""
    known = [identity, shards, [list(asdict(photo).values()) for photo in photos]]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


def read_part(folder: Path) -> Part | None:
    """What a part says of itself; None where it is not there, or not whole."""
    try:
        return Part(**read_json(folder / "part.json"))
    except (OSError, ValueError, TypeError):
        return None


def join(
    opener: Callable[[str], Any],
    model: str,
    sources: Sequence[Path],
    labels: str,
    output: Path,
    shards: int,
    leases: Leases,
) -> Path | None:
    """Make the index of all parts, and the receipt, once all of them are there; None before."""
    folders = [folder_of(output, i, shards) for i in range(shards)]
    parts = [part for part in map(read_part, folders) if part]
    if len(parts) < shards:
        return None
    receipt = output.with_name(f"{output.name}.receipt.json")
    with leases(folders[0].parent):
        if output.exists() and receipt.exists():
            return receipt  # another process was faster
        opened, photos = opener(model), photographs(sources, labels)
        key = key_of(opened.identity, photos, shards)
        if {part.key for part in parts} != {key}:
            raise ValueError(
                f"{folders[0].parent}: parts are of other photographs, or of another Model: the "
                "same command for each shard makes those anew that do not fit"
            )
        fresh = output.with_name(f".{output.name}.joining")
        shutil.rmtree(fresh, ignore_errors=True)
        index = Index.create(opened, fresh)
        for folder in folders:
            items = LanceStore(folder).scan([*PLAIN, "thumbnail", "vector"])
            rows = {row["path"]: i for i, row in enumerate(items.select(["path"]).to_pylist())}
            places = [rows[photo.path] for photo in photos if photo.path in rows]
            for start in range(0, len(places), AT_ONCE):
                some = items.take(places[start : start + AT_ONCE])
                index.store.put(table_of(some.drop(["vector"]).to_pylist(), vectors_of(some)))
        changes = index.update(*sources, labels=labels)  # finds them all, and notes the sources
        index.write_light()
        index.write_snapshot()
        fresh.rename(output)
        about = {
            "index": output.name,
            "photographs": len(photos),
            "items": len(index),
            "each_item_once": sum(part.photographs for part in parts) == len(photos),
            "left_out": dict(changes.left_out),
            "model": opened.identity,
            "seconds": round(sum(part.seconds for part in parts), 3),
            "threads": sorted({part.threads for part in parts}),
            "shards": [asdict(part) for part in parts],
        }
        text = json.dumps(about, indent=1) + "\n"
        write_whole(receipt, lambda file: file.write(text.encode()))
    return receipt


def unpacked(source: Path, output: Path, leases: Leases) -> Path:
    """The folder of a source: of a tar archive, as webdataset packs them, one beside the index with
    its pictures in folders of their classes; whoever comes second waits for the first."""
    if source.suffix.lower() != ARCHIVE or not source.is_file():
        return source
    from nearkin.data.sets.tars import LARGEST, pictures_of

    status = source.stat()
    state = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:8]
    folder = output.with_name(f"{output.name}.photos") / f"{source.stem}-{state}"
    with leases(folder.with_name(f".{folder.name}.lease")):
        if folder.is_dir():
            return folder
        fresh = folder.with_name(f".{folder.name}")
        shutil.rmtree(fresh, ignore_errors=True)
        with open_regular(source) as file:
            for name, kind, member in pictures_of(source):
                if member.size > LARGEST:
                    raise ValueError(f"{source}: {name} is too large")
                file.seek(member.start)
                path = fresh / plain(kind) / plain(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.read(member.size))
        fresh.rename(folder)
    return folder


def plain(name: str) -> str:
    r"""A name of an archive as that of one file or folder, which leads nowhere else.

    >>> plain("a/b.png"), plain("../x"), plain(".."), plain("Oat Latte")
    ('a_b.png', '.._x', '_..', 'Oat Latte')
    """
    found = re.sub(r"[/\\\0]", "_", name)
    return found if found.strip(".") else f"_{found}"
