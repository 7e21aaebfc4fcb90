"""The one reader of npz files: arrays of numbers and text, of a size that fits; no code is run."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from math import prod
from pathlib import Path
from zipfile import BadZipFile, LargeZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from nearkin.budget import memory
from nearkin.files import open_regular

KINDS = "biufcSUMm"  # kinds of NumPy's types that are plain bytes


def read_arrays(path: Path, keys: Collection[str] = ()) -> dict[str, np.ndarray]:
    """An npz file's arrays: all, or those with these names that it has.

    Raises:
        ValueError: it is no whole npz file, an array holds Python objects, or memory is too small.
    """
    try:
        with open_regular(path) as file, ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if len(members) < len(archive.infolist()):
                raise ReadError(
                    f"{path}: an array stands in it twice, and nobody knows which counts"
                )
            wanted = [name for name in (keys or members) if name in members]
            return {name: array_of(archive, members[name], path) for name in wanted}
    except ReadError as error:
        raise ValueError(str(error)) from None
    except (ValueError, OSError, EOFError, BadZipFile, LargeZipFile, zlib.error) as error:
        if isinstance(error, OSError) and error.errno:
            raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
        raise ValueError(f"{path}: not a whole npz file ({error})") from None
    except (NotImplementedError, RuntimeError, MemoryError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: an npz file that cannot be read ({error})") from None


def names_in(path: Path) -> list[str]:
    """The names of the arrays that an npz file has."""
    with ZipFile(path) as archive:
        return sorted(name.removesuffix(".npy") for name in archive.namelist())


class ReadError(ValueError):
    """What is wrong with an array of a file, in a whole sentence."""


def array_of(archive: ZipFile, info: ZipInfo, path: Path) -> np.ndarray:
    """One array of the archive, its type and size checked before anything is made of it."""
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, kind = read(file)
        if kind.hasobject or kind.kind not in KINDS:
            advice = f"save {name}.astype(str), or numbers" if kind.hasobject else "save numbers"
            held = "Python objects" if kind.hasobject else str(kind)
            raise ReadError(f"{path}: {name} holds {held}, which are not read: {advice}")
        size = prod(shape) * kind.itemsize
        if size > memory():
            raise ReadError(f"{path}: {name} would take {size / 1e9:,.0f} GB of memory")
        if size > info.file_size:
            raise ValueError(f"{name} is cut off")
        content = file.read(size)
    if len(content) != size:
        raise ValueError(f"{name} is cut off")
    array = np.frombuffer(bytearray(content), kind)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
