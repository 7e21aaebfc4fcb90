"""Photographs taken into an index: those that are new or changed are embedded, 128 to a commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nearkin.search.decisions import DECIDED, Decisions
from nearkin.search.photos import TABLES, Photo, composed, digest, file_of, find, stored
from nearkin.search.store import PLAIN, table_of
from nearkin.search.values import Changes

if TYPE_CHECKING:
    from nearkin.search.index import Index

AT_ONCE = 128  # photographs between two commits
THUMBNAIL = 96  # pixels of the longer side


def keep_up(
    index: Index,
    sources: Sequence[str | Path],
    labels: str,
    progress: Callable[[int, int], None],
) -> tuple[tuple[tuple[str, str], ...], Changes]:
    """Bring an index up to date with these folders and .csv files, or with those of before; all
    that it now keeps up with, and what has changed."""
    remembered = dict(index.description.sources)
    named = [composed(str(Path(each).expanduser().absolute())) for each in sources]
    if sources:
        remembered |= {stored(Path(each).expanduser().absolute()): labels for each in sources}
    elif not remembered:
        raise ValueError(f"{index.path} knows no folder yet: name one")
    chosen = {s: m for s, m in remembered.items() if not sources or s in named}
    for source in map(file_of, chosen):
        if source.is_file() and source.suffix.lower() not in TABLES:
            raise ValueError("update wanted folders, got a file: `add` takes single files")
    for source in map(file_of, chosen):
        if not sources and not source.exists():
            advice = "where it was renamed, name its new place"
            raise ValueError(f"{source}: no such file or folder; {advice}")
    photos: dict[str, Photo] = {}
    left_out: Counter[str] = Counter()
    for source, mode in chosen.items():
        kept, missing = there(index, [file_of(source)], mode)
        photos |= {photo.path: photo for photo in kept}
        left_out += missing
    left: set[str] = set()
    changes = take(index, list(photos.values()), progress, left)
    changes.left_out += left_out
    held = index.store.scan(["path"])["path"].to_pylist()
    gone = {p for p in held if p in left or (p not in photos and below(p, chosen))}
    index.store.delete(list(gone))
    changes.removed = max(0, len(gone) - changes.moved)
    held = [path for path in held if path not in gone]
    kept = {s: m for s, m in remembered.items() if file_of(s).exists() or under(s, held)}
    return tuple(kept.items()), changes


def take_in(
    index: Index,
    sources: Sequence[str | Path],
    labels: str,
    label: str | None,
    progress: Callable[[int, int], None],
) -> Changes:
    """Add photographs to an index; none is removed."""
    kept, left_out = there(index, sources, labels, label)
    changes = take(index, kept, progress)
    changes.left_out += left_out
    return changes


def there(
    index: Index, sources: Sequence[str | Path], labels: str, label: str | None = None
) -> tuple[list[Photo], Counter[str]]:
    """Photographs of folders and files as a person has decided of them, and what is left out."""
    found = find(sources, labels, label)
    kept = Decisions(index.path / DECIDED).applied(found.photos, found.left_out)
    return kept, found.left_out


def under(folder: str, paths: Iterable[str]) -> bool:
    """Whether any of these paths lies in a folder."""
    return any(below(path, [folder]) for path in paths)


def below(path: str, folders: Iterable[str]) -> bool:
    """Whether a path lies in one of these folders."""
    return any(file_of(path).is_relative_to(file_of(folder)) for folder in folders)


def take(
    index: Index,
    photos: list[Photo],
    progress: Callable[[int, int], None],
    left: set[str] | None = None,
) -> Changes:
    """Embed and store those that are new or changed; into `left` go the paths that hold no more
    what is stored of them: where moved ones were, and what can no longer be read."""
    left = set() if left is None else left
    held = {row["path"]: row for row in index.store.scan(list(PLAIN)).to_pylist()}
    changes, work = Changes(), []
    for photo in photos:
        old = held.get(photo.path)
        if old and (old["size"], old["mtime"]) == (photo.size, photo.mtime):
            if old["label"] == photo.label:
                changes.unchanged += 1
                continue
            changes.relabelled += 1
        work.append(photo)
    by_digest = {row["sha256"]: path for path, row in held.items()}
    for start in range(0, len(work), AT_ONCE):
        progress(start, len(work))
        commit(index, work[start : start + AT_ONCE], held, by_digest, changes, left)
    progress(len(work), len(work))
    return changes


def commit(
    index: Index,
    photos: list[Photo],
    held: dict[str, dict],
    by_digest: dict[str, str],
    changes: Changes,
    left: set[str],
) -> None:
    """One commit: vectors of bytes that are known are taken over, others are embedded."""
    from nearkin.data.pictures import BadPicture

    digests = {photo.path: digest(photo.path) for photo in photos}
    twins = {by_digest[sha] for sha in digests.values() if sha in by_digest}
    known = {}
    if twins:
        items = index.store.scan(["path", "thumbnail", "vector"], paths=sorted(twins))
        known = {row["path"]: row for row in items.to_pylist()}
    rows, vectors, fresh = [], [], []
    for photo in photos:
        row = {**asdict(photo), "sha256": digests[photo.path], "thumbnail": None}
        twin = by_digest.get(digests[photo.path])
        if twin is not None and twin in known:
            row["thumbnail"] = known[twin]["thumbnail"]
            vectors.append(np.asarray(known[twin]["vector"], dtype=np.float32))
            rows.append(row)
            old = held.get(photo.path)
            if old is None:
                gone = not file_of(twin).exists()
                changes.moved += gone
                changes.added += not gone
                left |= {twin} if gone else set()
            elif old["sha256"] != digests[photo.path]:
                changes.changed += 1
            elif old["label"] == photo.label:  # it only looked changed
                changes.unchanged += 1
            continue
        try:
            picture = index.model.preprocessing.prepare(file_of(photo.path))
            row["thumbnail"] = thumbnail(file_of(photo.path))
        except BadPicture:
            changes.left_out["unreadable pictures"] += 1
            left |= {photo.path} if photo.path in held else set()
            continue
        fresh.append((row, picture))
        if photo.path in held:
            changes.changed += 1
        else:
            changes.added += 1
    if fresh:
        import torch

        embedded = index.model.embed_prepared(torch.stack([picture for _, picture in fresh]))
        rows += [row for row, _ in fresh]
        vectors += list(np.asarray(embedded))
    if rows:
        index.store.put(table_of(rows, np.stack(vectors)))


def thumbnail(path: Path) -> bytes:
    """A small JPEG of a photograph, as viewers show it."""
    from PIL import Image

    from nearkin.data.pictures import read

    picture = Image.fromarray(read(path, short_side=2 * THUMBNAIL))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    out = BytesIO()
    picture.save(out, "JPEG", quality=80)
    return out.getvalue()
