"""What tells data apart: the fingerprint of a data set's items, and the state of files on disk."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from nearkin.data.photographs import digests_of
from nearkin.data.splits import Split, Splits

SETTLED = 2_000_000_000  # nanoseconds after which a file's times tell every later change of it


def fingerprint(splits: Splits) -> str:
    """16 hex digits of all that a run reads of a data set: the labels, classes, names and pixels
    (or vectors) of its items in their order, and which are searched. Where they lie is no part.

    >>> x, y = torch.zeros(4, 2), torch.tensor([0, 0, 1, 1])
    >>> train, test = Split(x, y, ("a", "b")), Split(x, y, ("c", "d"))
    >>> fingerprint(Splits("mine", train, test, test))
    '6ed975578302efd6'
    """
    content = hashlib.blake2b(digest_size=8)
    for name in ("shared_classes", "mixed_classes"):
        content.update(name.encode() if getattr(splits, name) else b"")
    parts = [splits.train, splits.query]
    parts += [splits.gallery] if splits.gallery is not splits.query else []
    for part in parts:
        content.update(of_split(part))
    return content.hexdigest()


def of_split(split: Split) -> bytes:
    """The digest of one split."""
    content = hashlib.blake2b(repr((split.classes, split.names)).encode(), digest_size=16)
    content.update(of_tensor(split.labels))
    x = split.inputs
    if not isinstance(x, Tensor):
        x = digests_of(x) if x.digests is None else x.digests
    content.update(of_tensor(x))
    return content.digest()


def of_tensor(x: Tensor) -> bytes:
    """The digest of a tensor's type, shape and numbers."""
    content = hashlib.blake2b(f"{x.dtype} {tuple(x.shape)}".encode(), digest_size=16)
    content.update(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return content.digest()


def of_file(path: Path) -> str:
    """16 hex digits of a file's content; of a folder's, of all files in it, by their names."""
    content = hashlib.blake2b(digest_size=8)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            content.update(file.relative_to(path).as_posix().encode() + b"\0")
            with open(file, "rb") as opened:
                content.update(hashlib.file_digest(opened, "blake2b").digest())
    return content.hexdigest()


def state_of(paths: Iterable[Path]) -> str | None:
    """What changes whenever one of these files does, or one below these folders: of all the names,
    lengths and times. None where a file is so fresh that its next change might not show in them.
    """
    content, newest = hashlib.blake2b(digest_size=16), 0
    for name, found in sorted(stats(paths)):
        content.update(repr((name, found)).encode())
        newest = max(newest, *found[:2])
    return None if newest > time.time_ns() - SETTLED else content.hexdigest()


def stats(paths: Iterable[Path]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, (time of change of its state, of its content, length, number)) of each file."""
    seen: set[tuple[int, int]] = set()
    for path in paths:
        pending = [str(path)]
        while pending:
            name = pending.pop()
            try:
                found = os.stat(name)
            except OSError:  # gone, or a link to nothing
                continue
            yield name, (found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino)
            if os.path.isdir(name) and (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                pending += [f"{name}/{each}" for each in os.listdir(name) if each[0] != "."]
