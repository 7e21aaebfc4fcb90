"""Leases: the right to work in a folder, for one process of all machines that share its disk.

A lease is a file `lease.N` in the folder. Whoever creates the next number, exclusively, holds the
lease; the highest number counts, and is never removed. While it works, the holder puts a new text
in the file's place every few seconds, by an atomic rename. A waiter takes over where that text has
not changed for a minute by the waiter's own clock, so that clocks need not agree, or where it names
a process of the waiter's own machine that is no more. No lock of the file system is needed.
"""

from __future__ import annotations

import os
import platform
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from uuid import uuid4

from nearkin.files import open_regular, sync_folder

BEAT, STALE = 10.0, 60.0
SHORTEST, LONGEST = 0.01, 2.0  # seconds between two looks of a waiter
NAME = re.compile(r"lease\.(\d{1,15})")
FREE = "free"
MOST = 1000  # bytes of a lease that are read


class Taken(OSError):
    """Another process holds the lease, and nobody wanted to wait; or it took the lease over from
    this process, which had given no sign of life."""


class Claims(Protocol):
    """What gives the right to work in a folder, as `Leases` does.

    Within claims(folder) no other process has it, and the folder is there. Whoever comes second
    waits for the first; with wait=False a `Taken` says that there is one.
    """

    def __call__(self, folder: Path, wait: bool = True) -> Any: ...

    def taken(self, folder: Path) -> bool:
        """Whether a living process has the folder."""
        ...


@dataclass
class Leases:
    """The leases of folders, and what this process has seen of those of others.

    beat: seconds between two signs of life of a holder.
    stale: seconds without one after which a holder counts as dead.
    seen: folder -> number and text of its lease when last looked at, and since when they were so.
    """

    beat: float = BEAT
    stale: float = STALE
    seen: dict[str, tuple[int, str, float]] = field(default_factory=dict)

    def __call__(self, folder: Path, wait: bool = True) -> Lease:
        return Lease(self, folder, wait)

    def taken(self, folder: Path) -> bool:
        return self.state(folder)[1]

    def state(self, folder: Path) -> tuple[int, bool]:
        """The number of the folder's last lease (0: there was none), and whether it is held."""
        number, text = last_lease(folder)
        if not number or text == FREE or process_is_gone(text):
            self.seen.pop(str(folder), None)
            return number, False
        now = time.monotonic()
        before = self.seen.get(str(folder))
        if before is None or before[:2] != (number, text):
            self.seen[str(folder)] = number, text, now
            return number, True
        return number, now - before[2] < self.stale

    def __getstate__(self) -> dict[str, Any]:
        """For another process, on a machine with another clock, ages stand in place of times."""
        now = time.monotonic()
        aged = {folder: (n, text, now - since) for folder, (n, text, since) in self.seen.items()}
        return {"beat": self.beat, "stale": self.stale, "seen": aged}

    def __setstate__(self, state: dict[str, Any]) -> None:
        now = time.monotonic()
        self.beat, self.stale = state["beat"], state["stale"]
        self.seen = {at: (n, text, now - age) for at, (n, text, age) in state["seen"].items()}


class Lease:
    """One lease, to be held within `with`; see `Leases`.

    lost: whether another process has taken it over, as this one gave no sign of life for too long.
    """

    def __init__(self, leases: Leases, folder: Path, wait: bool):
        self.leases, self.folder, self.wait = leases, folder, wait
        self.number, self.lost = 0, False
        self.text = ""
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.beat, daemon=True)

    def __enter__(self) -> Lease:
        make_folder(self.folder)
        pause = SHORTEST
        while not self.take():
            if not self.wait:
                raise Taken(f"{self.folder} is another process's")
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST)
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.ended.set()
        self.thread.join()
        with suppress(OSError):
            self.lost = last_lease(self.folder)[0] != self.number
            if not self.lost:
                self.release()
        if self.lost and isinstance(error, OSError):  # its files are the other process's now
            raise Taken(f"{self.folder} was taken over by another process") from error

    def take(self) -> bool:
        """Try once to become the holder."""
        number, taken = self.leases.state(self.folder)
        if taken:
            return False
        self.number = number + 1
        self.text = f"{host()} {os.getpid()} {born(os.getpid())} {uuid4().hex}"
        path = self.path
        try:
            opened = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        with open(opened, "w") as file:
            file.write(f"{self.text} 0")
        numbers = lease_numbers(self.folder)
        if max(numbers) > self.number:  # this number had been given, and removed, long ago
            path.unlink(missing_ok=True)
            return False
        for old in numbers:
            if old != self.number:
                (self.folder / f"lease.{old}").unlink(missing_ok=True)
        return True

    @property
    def path(self) -> Path:
        return self.folder / f"lease.{self.number}"

    def beat(self) -> None:
        """Give signs of life until the lease ends."""
        count = 0
        while not self.ended.wait(self.leases.beat):
            count += 1
            with suppress(OSError):  # a disk that is away for a while is there at the next beat
                if max(lease_numbers(self.folder)) > self.number:
                    self.lost = True
                    return
                self.write(f"{self.text} {count}")

    def release(self) -> None:
        """Let others have it; on a full disk the file goes, as nothing can be written."""
        try:
            self.write(FREE)
        except OSError:
            self.path.unlink(missing_ok=True)

    def write(self, text: str) -> None:
        """Put this text in the place of the file's, whole."""
        partial = self.folder / f".{self.path.name}.{uuid4().hex}"
        try:
            partial.write_text(text)
            os.replace(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that the disk knows of them."""
    if folder.is_dir():
        return
    made = [f for f in (folder, *folder.parents) if not f.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in made:
        sync_folder(one.parent)


def lease_numbers(folder: Path) -> list[int]:
    """The numbers of the leases in a folder: the last one, and those that nobody removed yet."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return [0]
    return [0, *(int(found[1]) for name in names if (found := NAME.fullmatch(name)))]


def last_lease(folder: Path) -> tuple[int, str]:
    """Number and text of the last lease of a folder; 0 and "" where there was none."""
    while True:
        number = max(lease_numbers(folder))
        if not number:
            return 0, ""
        try:
            with open_regular(folder / f"lease.{number}") as file:
                return number, file.read(MOST).decode(errors="replace")
        except FileNotFoundError:  # a higher one has come meanwhile
            continue


def process_is_gone(text: str) -> bool:
    """Whether a lease is of a process of this machine that has ended."""
    words = text.split()
    if len(words) != 5 or words[0] != host() or words[0] == UNKNOWN or not words[1].isdigit():
        return False
    return born(int(words[1])) != words[2]


UNKNOWN = "?"


@lru_cache
def host() -> str:
    """What no other machine has, nor this one after it was started anew, nor another container on
    it; "?" where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        processes = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    except OSError:
        return UNKNOWN
    return f"{re.sub(r'[^A-Za-z0-9.-]', '-', platform.node())}-{boot}-{processes}"


def born(process: int) -> str:
    """When a process of this machine began, by the system's count; "" of one that is no more."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return "" if host() != UNKNOWN else UNKNOWN
    words = text.rpartition(")")[2].split()
    return "" if words[0] in "ZX" else words[19]
