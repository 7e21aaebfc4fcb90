"""Files: written whole or not at all; those of strangers, read with an error in one line."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write(file)` fill a file that appears under its name only once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # which would be replaced, /dev/null too
        raise IrregularFile(errno.EINVAL, "wanted a file, got a folder, pipe or device", str(path))
    partial = path.with_name(f".{path.name}.{uuid4().hex[:12]}")  # of no other machine's process
    try:
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error, RuntimeError) else error  # under torch.save
        if not isinstance(cause, OSError):
            raise
        if cause.errno and not cause.filename:
            cause.filename = str(path)
        raise cause from None
    finally:
        partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Return when the disk has the names in a folder: what was made, renamed or removed there."""
    if os.name == "nt":  # which cannot, and need not
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError:  # some network file systems
        pass
    finally:
        os.close(opened)


def sync_below(folder: Path, known: Collection[Path] = ()) -> set[Path]:
    """Return when the disk has all files below a folder but those that are `known` to be there, as
    after a library that writes without fsync; which files these were, for the next call."""
    found = {Path(place) / name for place, _, names in os.walk(folder) for name in names}
    for path in sorted(found.difference(known)):
        with suppress(FileNotFoundError):  # which another process has removed meanwhile
            number = os.open(path, os.O_RDWR)
            try:
                os.fsync(number)
            finally:
                os.close(number)
    for place in {path.parent for path in found}:
        sync_folder(place)
    return found


def remove(path: Path) -> None:
    """Remove a file, if there is one, and return when the disk knows that it is gone."""
    if path.exists():
        path.unlink(missing_ok=True)
        sync_folder(path.parent)


def expanded(path: Path | str) -> Path:
    """The path as it is typed, with ~ as the home folder; as it is where nobody knows that folder.

    >>> expanded("~nobody-of-this-name/x").as_posix()
    '~nobody-of-this-name/x'
    """
    return Path(os.path.expanduser(path))


def resolved(path: Path) -> Path:
    """The path without links; links in a circle, of which Path.resolve makes a RuntimeError, stay.

    >>> resolved(Path("/tmp/../etc")).as_posix()
    '/etc'
    """
    return Path(os.path.realpath(path))


def open_regular(path: Path) -> BinaryIO:
    """A file opened for reading; a folder, pipe or device is refused, and not waited for.

    Raises:
        OSError: the file is missing, cannot be read, or is no regular one.
    """
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise IrregularFile(errno.EINVAL, "wanted a file, got a folder, pipe or device", str(path))
    return open(number, "rb")


class IrregularFile(OSError):
    """What is no regular file, where one was wanted."""


def refuse_no_folder(path: Path, flag: str) -> None:
    """A ValueError where a path cannot be a folder, as it, or one above it, is a file."""
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir():
        raise ValueError(f"{flag} {path}: wanted a folder, but {there} is a file")


def refuse_source(output: Path, source: Path) -> None:
    """A ValueError where the file that is to be written is the one that is read, under any name."""
    if output.exists() and source.exists() and output.samefile(source):
        raise ValueError(f"{output} is what is read, and would be lost: give another name")


LARGEST_JSON = 2**28
"""Bytes of the largest JSON file that is read."""


def read_json(path: Path) -> Any:
    """What a JSON file of a stranger's holds; a byte-order mark before it is no part of it."""
    with open_regular(path) as file:
        content = file.read(LARGEST_JSON + 1)
    if len(content) > LARGEST_JSON:
        raise ValueError(f"{path}: more than {LARGEST_JSON:,} bytes, too large for JSON of ours")
    return parse_json(content, str(path))


def without_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which nothing is said twice: of two the first would be dropped."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return found


def parse_json(text: bytes | str, name: str) -> Any:
    """What a text of JSON says, nothing of it twice; `name` is what errors call it.

    >>> parse_json("[" * 100_000, "x.json")
    Traceback (most recent call last):
    ValueError: x.json is not JSON: nested too deeply
    """
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        found = json.loads(text, object_pairs_hook=without_twice)
        if "\\ud" in text.lower():  # a half of a pair, that no file and no page can hold
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except RecursionError:
        raise ValueError(f"{name} is not JSON: nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not JSON: half a character (a lone surrogate)") from None
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
