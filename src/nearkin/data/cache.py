"""The decoded-image cache: pictures are decoded once, into a file that is memory-mapped ever after.

A folder of the cache holds

    header.json   version, number of pictures, channels: written first
    pixels.u8     the pictures one after the other, each as rows of pixels of channels
    sizes.i4      (height, width) of each picture, written after its pixels; 0 x 0 is a bad picture
    digests.u1    16 bytes of each picture, told from its pixels once all are there

The first two only grow, so whatever stopped a run, the next cuts off what is not whole and goes on.
The folder's name holds a hash of the list of files with their lengths and times: other files,
other folder. Where it lies, and what goes when all caches are too large, says cache_folder.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from nearkin.data.cache_folder import amount, cache_folder, claimed, make_room, touch
from nearkin.data.photographs import Photographs, digests_of
from nearkin.data.pictures import BadPicture, UnreadableFile, read
from nearkin.files import write_whole

VERSION = 3  # 2: turned as the EXIF orientation says; 3: large pictures, floats, transparent grey
CHUNK = 64


def photographs(
    name: str,
    root: Path,
    files: Sequence[str],
    *,
    short_side: int = 256,
    channels: int = 3,
    skip_bad: bool = False,
    source: Source | None = None,
) -> tuple[Photographs, Tensor]:
    """The decoded files, from the cache, which is made or finished first where it is not whole.

    Args:
        name: of the data set, for messages and for the cache's folder.
        root: what the files' names are relative to.
        files: N names.
        short_side: pictures are shrunk to it, never enlarged; 0 keeps the originals.
        channels: 3 (colour) or 1 (grey).
        skip_bad: leave out, and count, what cannot be read instead of stopping at the first.
        source: what has the files; by default the folder `root`.

    Returns:
        The pictures, and which of the N files they are.
    """
    source = source or Folder(root)

    def decode(file: str) -> np.ndarray:
        try:
            return source.read(file, channels, short_side)
        except BadPicture:
            if not skip_bad:
                raise
            return np.empty((0, 0, channels), np.uint8)

    cache = cache_folder()
    folder = cache / f"{name}-{digest(root, source, files, short_side, channels)}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with claimed(folder):
            sizes = opened(folder, len(files), channels)
            if len(sizes) < len(files):
                sizes = grown(folder, sizes, files, decode, f"decoding {name}")
                say(name, folder)
            touch(folder)
        make_room(keep=folder)
    except UnreadableFile:  # it may be there the next time: nothing is noted of it
        raise
    except OSError as error:
        raise OSError(
            f"{name}: cannot write the cache {folder} ({error.strerror or error}); "
            f"NEARKIN_CACHE may name another folder"
        ) from None

    heights, widths = torch.from_numpy(sizes.astype(np.int64)).T
    lengths = heights * widths * channels
    kept = lengths.nonzero()[:, 0]
    if len(kept) < len(files):
        first = files[int((lengths == 0).nonzero()[0])]
        if not skip_bad:
            source.read(first, channels, 0)  # says what is wrong with it
            raise ValueError(f"{name}: {first} could not be read once: delete {folder}")
        bad = len(files) - len(kept)
        warnings.warn(f"{name}: bad pictures left out: {bad}, such as {first}", stacklevel=2)
    if len(kept) == 0:
        raise ValueError(f"{name}: no pictures in {root}")
    total = int(lengths.sum())
    pixels = torch.from_file(str(folder / "pixels.u8"), size=total, dtype=torch.uint8)
    whole = Photographs(pixels, lengths.cumsum(0) - lengths, heights, widths, channels)
    return replace(whole, digests=stored_digests(folder, whole))[kept], kept


LATER: ContextVar[list[str] | None] = ContextVar("LATER", default=None)
"""Where `say` puts its sentences for one who tells them later; None: it tells them at once."""


@contextmanager
def told_later() -> Iterator[list[str]]:
    """What `say` tells within, for a report that ends with it."""
    later: list[str] = []
    before = LATER.set(later)
    try:
        yield later
    finally:
        LATER.reset(before)


def say(name: str, folder: Path) -> None:
    """Tell where the decoded pictures are, and how to be rid of them."""
    size = amount((folder / "pixels.u8").stat().st_size)
    told = f"{name}: {size} of decoded pictures in {folder} (`nearkin cache clear` removes them)"
    later = LATER.get()
    if later is None:
        print(told, file=sys.stderr)
    else:
        later.append(told)


def stored_digests(folder: Path, pictures: Photographs) -> Tensor:
    """The digests of all pictures of a folder of the cache, which are made where it has none."""
    path = folder / "digests.u1"
    if not path.exists() or path.stat().st_size != 16 * len(pictures):
        digests = digests_of(pictures)
        write_whole(path, lambda file: file.write(digests.numpy().tobytes()))
        return digests
    return torch.from_numpy(np.fromfile(path, np.uint8).reshape(-1, 16))


def digest(root: Path, source: Source, files: Sequence[str], short_side: int, channels: int) -> str:
    """16 hex digits of what decides the cache's contents: the files' names, lengths and times."""
    listing = [(file, *source.state(file)) for file in files]
    text = json.dumps([str(root.absolute()), short_side, channels, listing])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Source(Protocol):
    """What has picture files by their names."""

    def read(self, file: str, channels: int, short_side: int) -> np.ndarray:
        """The picture of a file, as `nearkin.data.pictures.read` gives it."""
        ...

    def state(self, file: str) -> tuple[int, ...]:
        """What changes whenever the file does."""
        ...


@dataclass(frozen=True)
class Folder:
    """The files of a folder."""

    root: Path

    def read(self, file: str, channels: int, short_side: int) -> np.ndarray:
        return read(self.root / file, channels, short_side)

    def state(self, file: str) -> tuple[int, ...]:
        try:
            found = os.stat(f"{self.root}/{file}")
        except (OSError, ValueError):  # of a name that no file can have
            return (-1,)
        # a picture may give way to another of its length, as those without compression do, and of
        # its time, as archives hold it; but the time of the change itself nobody can choose
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def opened(folder: Path, count: int, channels: int) -> np.ndarray:
    """The sizes (n, 2) of the n <= count pictures that the folder holds; what is cut off goes.

    A folder of another version is emptied.
    """
    header = json.dumps({"version": VERSION, "pictures": count, "channels": channels})
    files = (folder / "header.json", folder / "pixels.u8", folder / "sizes.i4")
    complete = all(file.exists() for file in files)
    if folder.exists() and not (complete and files[0].read_bytes() == header.encode()):
        warnings.warn(f"{folder} is of another version, or not whole: decoding again", stacklevel=3)
        shutil.rmtree(folder)
    if not folder.exists():
        fresh = folder.with_name(f".{folder.name}")  # of a killed run, too: the lock is ours
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        shutil.copymode(folder.parent, fresh)  # who may use the cache may use this
        try:
            for file, content in zip(files, (header, "", ""), strict=True):
                (fresh / file.name).write_text(content)
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    sizes = np.fromfile(files[2], "<i4")
    sizes = sizes[: len(sizes) // 2 * 2].reshape(-1, 2)
    if (sizes < 0).any():
        raise ValueError(f"{folder} is damaged: delete it, and it is made again")
    ends = (sizes.prod(1, dtype=np.int64) * channels).cumsum()
    whole = int((ends <= files[1].stat().st_size).sum())
    os.truncate(files[1], ends[whole - 1] if whole else 0)
    os.truncate(files[2], 8 * whole)
    return sizes[:whole]


def grown(
    folder: Path,
    sizes: np.ndarray,
    files: Sequence[str],
    decode: Callable[[str], np.ndarray],
    title: str,
) -> np.ndarray:
    """Decodes what the folder does not hold yet; the sizes (N, 2) of all.

    Where it cannot be written (a full disk), it is removed, so that nothing stays half written.
    """
    chunks = [files[at : at + CHUNK] for at in range(len(sizes), len(files), CHUNK)]
    console = Console(stderr=True)
    with (
        ThreadPoolExecutor(torch.get_num_threads()) as pool,
        open(folder / "pixels.u8", "ab") as pixels_file,
        open(folder / "sizes.i4", "ab") as sizes_file,
    ):
        for chunk in track(chunks, title, console=console, disable=not console.is_terminal):
            pictures = list(pool.map(decode, chunk))
            new = np.array([picture.shape[:2] for picture in pictures], "<i4")
            try:
                write(pixels_file, *(picture.tobytes() for picture in pictures))
                write(sizes_file, new.tobytes())
            except OSError:
                shutil.rmtree(folder)
                raise
            sizes = np.concatenate([sizes, new])
    return sizes


def write(file: BinaryIO, *parts: bytes) -> None:
    """Append the parts, and return when the disk has them."""
    for part in parts:
        file.write(part)
    file.flush()
    os.fsync(file.fileno())
