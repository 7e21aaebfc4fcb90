"""Feature maps of many pictures: made once, into files that are memory-mapped ever after.

A folder of the cache holds

    header.json   version, number of maps, their shape and bits: written first
    maps.u1       the maps one after the other, in whole chunks; whatever stopped a run, the next
                  cuts off what is not whole and goes on

The folder's name holds a hash of all that decides the maps' numbers. Where it lies, and what goes
when all caches are too large, says cache_folder.py.

Dimensions: N maps, B of them, C channels, H x W cells.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from nearkin.data.cache import write
from nearkin.data.cache_folder import (
    amount,
    cache_folder,
    claimed,
    make_room,
    most_bytes,
    touch,
)
from nearkin.files import write_whole

VERSION = 1
CHUNK = 64  # maps that are made at once: where chunks end decides their last bits
TOLD = 60.0  # seconds from one line of progress to the next, where there is no terminal
BITS = {32: torch.float32, 16: torch.float16, 8: torch.uint8}
"""Bits of a stored number. Of 8 they are steps between the least and the largest number of a
channel of a map, which are stored beside them in 16:

    q = round((x - low) / step),   step = (high - low) / 255
"""


@dataclass(frozen=True, eq=False)
class Maps:
    """N feature maps, as they lie on the disk.

    rows: (N, bytes) uint8, memory-mapped; each row has a map's cells one after the other.
    """

    rows: Tensor
    shape: tuple[int, ...]  # C, H, W
    bits: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """The maps at these indices: (B, C, H, W) float32, laid out as channels last."""
        return unpacked(self.rows[indices], self.shape, self.bits)


def bytes_of(shape: Sequence[int], bits: int) -> int:
    """Of one stored map (C, H, W).

    >>> bytes_of((2, 3, 3), 16), bytes_of((2, 3, 3), 8)
    (36, 26)
    """
    return prod(shape) * bits // 8 + (4 * shape[0] if bits == 8 else 0)


def packed(maps: Tensor, bits: int) -> Tensor:
    """Maps (B, C, H, W) as rows of bytes (B, bytes) uint8."""
    cells = maps.detach().cpu().float().permute(0, 2, 3, 1).flatten(1, 2).contiguous()  # (B, HW, C)
    largest = cells.abs().max().item() if len(cells) else 0.0
    limit = torch.finfo(BITS[32 if bits == 32 else 16]).max
    if not largest <= limit:  # nor is it where it is not a number
        raise ValueError(f"maps in {bits} bits go up to {limit:g}, got {largest:g}: take 32 bits")
    if bits != 8:
        return cells.to(BITS[bits]).flatten(1).view(torch.uint8)
    low = cells.amin(1, keepdim=True).half()
    step = ((cells.amax(1, keepdim=True) - low.float()) / 255).half()
    steps = (cells - low.float()) / step.float().masked_fill(step == 0, 1)  # 0: all are equal
    numbers = steps.round().clamp(0, 255).to(torch.uint8)
    scales = torch.cat([low, step], 1).flatten(1).view(torch.uint8)
    return torch.cat([scales, numbers.flatten(1)], 1)


def unpacked(rows: Tensor, shape: Sequence[int], bits: int) -> Tensor:
    """The maps (B, C, H, W) float32 of rows of bytes."""
    channels, height, width = shape
    if bits != 8:
        numbers = rows.view(BITS[bits]).view(len(rows), height, width, channels).float()
    else:
        scales = rows[:, : 4 * channels].contiguous().view(torch.half).float()
        low, step = scales.view(len(rows), 2, 1, 1, channels).unbind(1)
        numbers = rows[:, 4 * channels :].reshape(len(rows), height, width, channels)
        numbers = low + step * numbers.float()
    return numbers.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Table:
    """Maps that are to be stored, and what makes them.

    name: of the data set, for messages and the folder.
    key: plain data, all that decides the maps' numbers.
    make: places (B,) -> maps (B, C, H, W). It is asked for chunks of CHUNK places from 0 on.
    """

    name: str
    key: Mapping[str, Any]
    count: int
    shape: tuple[int, ...]
    bits: int
    make: Callable[[Tensor], Tensor]

    @property
    def bytes(self) -> int:
        return self.count * bytes_of(self.shape, self.bits)

    @property
    def header(self) -> bytes:
        """What the folder's header.json holds."""
        told = {"version": VERSION, "maps": self.count, "shape": self.shape, "bits": self.bits}
        return json.dumps(told).encode()

    @property
    def folder(self) -> Path:
        """Where they are to lie."""
        text = json.dumps([dict(self.key), self.header.decode()], sort_keys=True)
        name = re.sub(r"[^\w.-]+", "-", self.name)[-60:]
        return cache_folder() / f"{name}-maps-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @property
    def file(self) -> Path:
        return self.folder / "maps.u1"

    @property
    def lacking(self) -> int:
        """Bytes that the disk does not hold yet."""
        return self.bytes - (self.file.stat().st_size if self.file.exists() else 0)


def stored(tables: Sequence[Table]) -> list[Maps]:
    """The maps of these tables, which are made first where they are not whole.

    Raises:
        ValueError: they would be larger than all caches together may be.
        OSError: the disk has no room for them, or cannot be written.
    """
    lacking = sum(table.lacking for table in tables)
    try:
        if lacking:
            announce(tables, lacking)
        for table in tables:
            table.folder.parent.mkdir(parents=True, exist_ok=True)
            with claimed(table.folder):
                if table.lacking or not is_ours(table):
                    make_room(keep=table.folder, coming=table.lacking)
                    grow(table)
                touch(table.folder)
    except OSError as error:
        where = tables[0].folder.parent
        raise OSError(
            f"{tables[0].name}: cannot store feature maps in {where} ({error.strerror or error}); "
            "NEARKIN_CACHE may name another folder"
        ) from None
    return [opened(table) for table in tables]


def opened(table: Table) -> Maps:
    """The stored maps of a table, memory-mapped."""
    rows = torch.from_file(str(table.file), size=table.bytes, dtype=torch.uint8)
    return Maps(rows.view(table.count, -1), table.shape, table.bits)


def announce(tables: Sequence[Table], lacking: int) -> None:
    """Tell how large the maps will be, before anything is written; refuse what has no room."""
    whole, most = sum(table.bytes for table in tables), most_bytes()
    first, count = tables[0], sum(table.count for table in tables)
    sides = " x ".join(map(str, first.shape))
    size = f"{count:,} feature maps of {sides} in {first.bits} bits, {amount(whole)}"
    less = "take fewer crops, or fewer bits"
    if whole > most:
        raise ValueError(
            f"{first.name}: {size}, are more than caches may hold "
            f"(NEARKIN_CACHE_GB: {amount(most)}): {less}"
        )
    there = next(path for path in first.folder.parents if path.exists())
    free = shutil.disk_usage(there).free
    if lacking > free:
        raise ValueError(
            f"{first.name}: {size}, of which {amount(lacking)} are to be written, and the disk has "
            f"{amount(free)} free: {less}"
        )
    say(f"{first.name}: {size}, are stored in {first.folder.parent}, {amount(lacking)} anew")


def is_ours(table: Table) -> bool:
    """Whether the table's folder is of this version, shape and number of maps."""
    header = table.folder / "header.json"
    return header.exists() and header.read_bytes() == table.header and table.file.exists()


def grow(table: Table) -> None:
    """Make the maps that the folder does not hold yet.

    Where it cannot be written (a full disk), it is removed, so that nothing stays half written.
    """
    if not is_ours(table):
        shutil.rmtree(table.folder, ignore_errors=True)
        table.folder.mkdir()
        shutil.copymode(table.folder.parent, table.folder)
        table.file.touch()
        write_whole(table.folder / "header.json", lambda file: file.write(table.header))
    row = bytes_of(table.shape, table.bits)
    done = table.file.stat().st_size // (row * CHUNK) * CHUNK
    os.truncate(table.file, done * row)
    with open(table.file, "ab") as file:
        for places in chunks(done, table.count, table.name):
            rows = packed(table.make(places), table.bits)
            try:
                write(file, rows.numpy().tobytes())
            except OSError:
                shutil.rmtree(table.folder)
                raise


def chunks(start: int, stop: int, name: str) -> Iterator[Tensor]:
    """The places start..stop in chunks; a bar, or a line a minute, shows how far they are."""
    parts = list(torch.arange(start, stop).split(CHUNK)) if start < stop else []
    console, told = Console(stderr=True), time.monotonic()
    shown = track(parts, f"feature maps of {name}", console=console, transient=True)
    for places in shown if console.is_terminal else parts:
        if not console.is_terminal and time.monotonic() - told > TOLD:
            told = time.monotonic()
            say(f"{name}: {int(places[0]):,} of {stop:,} feature maps")
        yield places


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
