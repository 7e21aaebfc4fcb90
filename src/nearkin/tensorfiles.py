"""The one reader of files of tensors: safetensors, and torch's own, of which no code is run.

A file is checked before anybody takes anything from it: how much it holds, that it unpacks to no
more than its own size, that tensors are dense and store all their numbers, and that all beside them
is plain data. Whether names, shapes and types are those that are wanted, is for the one who wants
them (`nearkin.models.fill`, `nearkin.runs.checkpoint`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import torch
from torch import Tensor

from nearkin.extras import optional
from nearkin.files import IrregularFile, open_regular

MOST = 1_000_000
"""Tensors, and values beside them, that a file may hold."""
PLAIN = (str, int, float, complex, bool, bytes, type(None), torch.dtype, torch.Size, torch.device)


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """A file of safetensors, which `read_tensors` reads."""
    with optional():
        from safetensors.torch import save
    return save({name: x.detach().cpu().contiguous() for name, x in tensors.items()})


class Unreadable(ValueError):
    """What is wrong with a file, in words that follow its name."""


def read_tensors(path: Path) -> dict[Any, Any]:
    """What a file of tensors and plain data holds, on the CPU.

    Raises:
        ValueError: there is no such file, or it is broken, or holds what only code could make, or
            claims more than it stores; in one line.
    """
    try:
        with open_regular(path) as file:
            if path.suffix == ".safetensors":
                return safetensors_in(path)
            if is_zipfile(file):
                refuse_inflated(file)
            file.seek(0)
            found = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(found, dict):
            raise Unreadable(f"wanted a dictionary, got {type(found).__name__}")
        refuse_odd(found)
    except (FileNotFoundError, IrregularFile):
        raise ValueError(f"{path}: no such file") from None
    except PermissionError:
        raise
    except Unreadable as error:
        raise ValueError(f"{path}: {BROKEN}: {error}") from None
    except Exception as error:  # bytes that are no checkpoint can be taken for anything
        raise ValueError(f"{path}: {BROKEN}{object_in(error)}") from None
    return found


def parse_safetensors(content: bytes, name: str) -> dict[str, Tensor]:
    """The tensors in the bytes of a safetensors file; `name` is what errors call it."""
    try:
        return safetensors_in(content)
    except Exception as error:
        why = " ".join(str(error).split())[:100] or type(error).__name__
        raise ValueError(f"{name}: {BROKEN} ({why})") from None


def safetensors_in(source: Path | bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file, whose library checks offsets, types and shapes."""
    with optional():
        from safetensors import torch as library

    found = library.load(source) if isinstance(source, bytes) else library.load_file(source)
    refuse_odd(found)
    return found


BROKEN = "broken, or not tensors and plain data alone"


def refuse_inflated(file: BinaryIO) -> None:
    """torch packs tensors as they are, one after the other: refuse an archive that is compressed,
    or whose parts overlap, as it could unpack to any size."""
    try:
        with ZipFile(file) as archive:
            members = archive.infolist()
    except BadZipFile as error:
        raise Unreadable(str(error)) from None
    size = file.seek(0, 2)
    if len(members) > MOST:
        raise Unreadable(f"it has {len(members):,} parts")
    if any(member.compress_type != ZIP_STORED for member in members):
        raise Unreadable("its parts are compressed, as torch leaves none")
    if sum(member.file_size for member in members) > size:
        raise Unreadable(f"its parts claim more than the {size:,} bytes that there are")


def refuse_odd(found: Mapping[Any, Any]) -> None:
    """Refuse tensors that are not dense or claim more numbers than they store, objects of other
    kinds, and more values than MOST, as of lists that hold each other."""
    for count, value in enumerate(values_in(found)):
        if count >= MOST:
            raise Unreadable(f"it holds more than {MOST:,} values")
        if isinstance(value, Tensor):
            refuse_odd_tensor(value)
        elif not isinstance(value, PLAIN):
            raise Unreadable(f"it holds a {type(value).__name__}")


def values_in(found: Any) -> Iterator[Any]:
    """What dictionaries, lists and tuples hold, at any depth, keys included."""
    waiting = [found]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            yield from (key for key in value)
            waiting += value.values()
        elif isinstance(value, list | tuple) and not isinstance(value, torch.Size):
            yield len(value)
            waiting += value
        else:
            yield value


def refuse_odd_tensor(tensor: Tensor) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise Unreadable(f"wanted dense tensors, got one of {tensor.layout}")
    held = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > held:
        raise Unreadable(f"a tensor {tuple(tensor.shape)} has {held:,} bytes alone")


def object_in(error: Exception) -> str:
    """The object that only code could make, which torch's error names; "" of other errors."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f": it holds a {named[1]}, save the state dict alone" if named else ""
