"""Unpacking of archives that others have packed: all of it, inside the folder, or nothing."""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from nearkin.files import IrregularFile, expanded, open_regular

RATIO = 200
"""Times its own size that an archive may unpack to, beyond SMALL; pictures take once, lists 20."""
SMALL = 50_000_000
MOST = 5_000_000  # members
BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into the folder, which is made if it is not there.

    Raises:
        ValueError: nothing was written, as a member points outside the folder, is neither file nor
            folder, is encrypted, has no name or that of another one (on this disk, which may not
            tell A from a); as its top folder is already there; as all would take more than RATIO
            times the archive or more than is free on the disk; or as the archive is broken.
    """
    archive, folder = expanded(archive), expanded(folder)
    try:
        with open_regular(archive) as file:
            unpack_file(file, archive, folder)
    except Refused as error:
        raise ValueError(f"{archive}: {error}") from None
    except IrregularFile:
        raise
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # what bz2 and zip say of broken offsets
            raise ValueError(f"{archive}: not a whole archive ({error})") from None
        error.filename = error.filename or str(folder)  # a full disk does not say where
        raise
    except (NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{archive}: packed in a way that cannot be read ({error})") from None
    except BROKEN as error:
        raise ValueError(f"{archive}: not a whole archive ({error})") from None


class Refused(Exception):
    """What is wrong with an archive, in a whole sentence."""


def unpack_file(file: BinaryIO, archive: Path, folder: Path) -> None:
    """Check every member, unpack all into a hidden folder, and move what stands there on top."""
    packed = archive.stat().st_size
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    most = min(shutil.disk_usage(existing).free, max(SMALL, RATIO * packed))
    fresh = folder / f".unpacking-{archive.name}"
    whole, count, files = 0, 0, 0
    with opened(file, archive) as source:
        for name, size, kind in members(source):
            refuse(name, bool(kind), folder)
            whole, count, files = whole + size, count + 1, files + (kind == "file")
            if whole > most or count > MOST:
                size = f"{most / 1e6:,.0f} MB (of {packed / 1e6:,.1f} MB packed)"
                raise Refused(f"refused, it would take more than {size} or {MOST:,} files")
        if not count:
            raise Refused("it holds nothing")
        shutil.rmtree(fresh, ignore_errors=True)  # of a call that was killed
        fresh.mkdir(parents=True)
        try:
            if isinstance(source, tarfile.TarFile):
                source.extractall(fresh, filter="data")
            else:
                source.extractall(fresh)
            if lost := files - sum(len(names) for _, _, names in os.walk(fresh)):
                raise Refused(f"refused, {lost:,} members have the name of another one")
            for path in fresh.iterdir():
                path.rename(folder / path.name)
        finally:
            shutil.rmtree(fresh)


def opened(file: BinaryIO, archive: Path) -> zipfile.ZipFile | tarfile.TarFile:
    """The archive, of whichever kind it is."""
    if zipfile.is_zipfile(file):
        return zipfile.ZipFile(file)
    file.seek(0)
    try:
        return tarfile.open(fileobj=file)
    except tarfile.ReadError:
        raise Refused("not a zip or tar archive") from None


def members(source: zipfile.ZipFile | tarfile.TarFile) -> Iterator[tuple[str, int, str]]:
    """(name, size in bytes, "file", "folder" or "" for anything else) of each member."""
    if isinstance(source, tarfile.TarFile):
        for member in source:
            kind = "file" if member.isfile() else "folder" if member.isdir() else ""
            yield member.name, member.size, kind
        refuse_without_end(source)
        return
    for info in source.infolist():
        if info.flag_bits & 1:
            raise Refused(f"refused, {info.filename!r} is encrypted")
        kind = stat.S_IFMT(info.external_attr >> 16)
        known = "folder" if info.filename.endswith("/") else "file"
        yield (
            info.filename,
            info.file_size,
            known if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "",
        )


def refuse_without_end(source: tarfile.TarFile) -> None:
    """Stop at a tar, read to its last member, that lacks the block of zeros which ends one: it was
    cut between two members."""
    assert source.fileobj, "of an open archive"
    source.fileobj.seek(source.offset)
    if not source.fileobj.read(1):
        raise tarfile.ReadError("it ends after a member, without the end of a tar")


def refuse(name: str, plain: bool, folder: Path) -> None:
    """Stop at a member that must not be unpacked."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not name.strip("/."):
        if name.strip("/"):
            return  # the folder itself
        raise Refused("refused, a member has no name")
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\0" in name:
        raise Refused(f"refused, {name!r} points outside the folder")
    if not plain:
        raise Refused(f"refused, {name!r} is a link or a device")
    if (folder / path.parts[0]).exists():
        raise Refused(f"{folder / path.parts[0]} is already there")
