"""Unpacking of archives that others have packed: all of it, inside the folder, or nothing."""

from __future__ import annotations

import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into the folder, which is made if it is not there.

    Refused, before anything is written: a member that points outside the folder, one that is
    neither file nor folder, one that is encrypted, and one whose top folder is already there.
    """
    if not (zipfile.is_zipfile(archive) or tarfile.is_tarfile(archive)):
        raise ValueError(f"{archive}: not a zip or tar archive")
    folder.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder))
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                members = opened.infolist()
                for member in members:
                    kind = stat.S_IFMT(member.external_attr >> 16)
                    plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
                    refuse(archive, folder, member.filename, plain)
                    if member.flag_bits & 1:
                        raise ValueError(f"{archive}: refused, {member.filename!r} is encrypted")
                opened.extractall(fresh)
        else:
            with tarfile.open(archive) as opened:
                for member in opened:
                    refuse(archive, folder, member.name, member.isfile() or member.isdir())
                opened.extractall(fresh, filter="data")
        for path in fresh.iterdir():
            path.rename(folder / path.name)
    except OSError as error:
        if error.errno and not error.filename:  # a full disk does not say where
            error.filename = str(folder)
        raise
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{archive}: not a whole archive ({error})") from None
    except NotImplementedError as error:
        raise ValueError(f"{archive}: packed in a way that cannot be read ({error})") from None
    finally:
        shutil.rmtree(fresh)


def refuse(archive: Path, folder: Path, name: str, plain: bool) -> None:
    """A ValueError for a member that must not be unpacked."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name.partition("/")[0]:
        raise ValueError(f"{archive}: refused, {name!r} points outside the folder")
    if not plain:
        raise ValueError(f"{archive}: refused, {name!r} is a link or a device")
    if path.parts and (folder / path.parts[0]).exists():
        raise ValueError(f"{archive}: {folder / path.parts[0]} is already there")
