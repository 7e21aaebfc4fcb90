"""The right to carry out a run: for one process at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from nearkin.files import sync_folder


class Taken(OSError):
    """Another process holds the claim, and nobody wanted to wait."""


class Claims(Protocol):
    """What makes the claim to a run's folder; leases of several machines may take its place.

    Within the claim no other process has one to this folder, which is there. Whoever comes second
    waits for the first; with wait=False a `Taken` says that there is one. A claim ends with its
    process, however that ends.
    """

    def __call__(self, folder: Path, wait: bool = True) -> AbstractContextManager[None]: ...


class FileClaim:
    """A claim by a lock on the file `lock` in the run's folder, as processes of one machine, and
    those of several where the file system locks for all of them, respect it.

    What a process that was killed had half written in the folder is removed.
    """

    def __init__(self, folder: Path, wait: bool = True):
        self.folder = folder
        self.lock = FileLock(folder / "lock", timeout=-1 if wait else 0)

    def __enter__(self) -> None:
        made = [f for f in (self.folder, *self.folder.parents) if not f.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        for folder in made:
            sync_folder(folder.parent)
        try:
            self.lock.acquire()
        except Timeout:
            raise Taken(f"{self.folder} is another process's") from None
        for partial in self.folder.glob(".*"):
            if partial.is_file():
                with suppress(FileNotFoundError):
                    partial.unlink()

    def __exit__(self, *_: object) -> None:
        self.lock.release()
