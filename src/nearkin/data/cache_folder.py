"""The folder of caches: where it is, what lies in it, how large it may grow, how it is emptied."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from nearkin.files import expanded

GB = 10**9
MOST_GB = 50.0
"""How large all caches together may be, in GB; NEARKIN_CACHE_GB may say otherwise."""
USED = "used"  # a file whose time is that of the last use


@dataclass(frozen=True)
class Cache:
    """A data set's decoded pictures, or feature maps: the folder, its size, and its last use."""

    folder: Path
    bytes: int
    used: float  # seconds since 1970

    def __str__(self) -> str:
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.used))
        return f"{amount(self.bytes):>10}  last used {day}  {self.folder.name}"


def cache_folder() -> Path:
    """The folder of NEARKIN_CACHE, else `nearkin` in the platform's folder for caches."""
    named = os.environ.get("NEARKIN_CACHE")
    return expanded(named) if named else user_cache_path("nearkin", appauthor=False)


def most_bytes() -> int:
    """How large all caches together may be.

    Raises: ValueError where NEARKIN_CACHE_GB is not a number of at least 0.
    """
    text = os.environ.get("NEARKIN_CACHE_GB") or str(MOST_GB)
    if not re.fullmatch(r"\d+(\.\d*)?", text) or float(text) > 1e9:
        raise ValueError(f"wanted NEARKIN_CACHE_GB as a number of GB, got {text!r}")
    return round(float(text) * GB)


def caches(folder: Path | None = None) -> list[Cache]:
    """What lies in the folder of caches, the least recently used first."""
    folder = folder or cache_folder()
    found = []
    for one in folder.iterdir() if folder.is_dir() else ():
        if (one / "header.json").is_file():  # what else lies there is not ours
            size = sum(file.stat().st_size for file in one.iterdir() if file.is_file())
            stamp = one / USED
            used = (stamp if stamp.exists() else one / "header.json").stat().st_mtime
            found.append(Cache(one, size, used))
    return sorted(found, key=lambda cache: (cache.used, cache.folder.name))


@contextmanager
def claimed(folder: Path, timeout: float = -1) -> Iterator[bool]:
    """Whether this process alone may write or remove a cache for now; it waits for others."""
    lock = FileLock(lock_of(folder), timeout=timeout)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def lock_of(folder: Path) -> Path:
    """The lock of a cache, and of what becomes one once it is whole."""
    return folder.with_name(f"{folder.name.removeprefix('.')}.lock")


def touch(folder: Path) -> None:
    """Note that a cache is used now."""
    with suppress(OSError):  # a cache of others, which may only be read
        (folder / USED).touch()


def clear(folder: Path | None = None) -> list[Cache]:
    """Remove every cache that no other process is writing; those that went. A run that has one of
    them open goes on with it."""
    return [cache for cache in caches(folder) if removed(cache)]


def make_room(keep: Path, coming: int = 0) -> list[Cache]:
    """Remove the least recently used caches until all together, and as many bytes as are coming,
    are within the bound; `keep`, which is in use, stays."""
    found, most = caches(keep.parent), most_bytes()
    total, gone = coming + sum(cache.bytes for cache in found), []
    for cache in found:
        if total <= most:
            break
        if cache.folder != keep and removed(cache):
            total -= cache.bytes
            gone.append(cache)
    return gone


def removed(cache: Cache) -> bool:
    """Remove a cache and its lock; False where another process has claimed it."""
    with claimed(cache.folder, timeout=0) as free:
        if free:
            shutil.rmtree(cache.folder, ignore_errors=True)
            lock_of(cache.folder).unlink(missing_ok=True)
    return free


def amount(count: int) -> str:
    """A number of bytes in words.

    >>> amount(532), amount(1_234_567), amount(2_500_000_000)
    ('532 bytes', '1.2 MB', '2.5 GB')
    """
    for unit, size in (("GB", GB), ("MB", 10**6), ("kB", 1000)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
