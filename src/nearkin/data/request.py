"""What a data set is asked for, and the folders in which it is looked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Absent(ValueError):
    """A data set whose files are not on this machine, or not where they were looked for."""


@dataclass(frozen=True)
class Request:
    """What a data set is asked for; every data set is a function (Request) -> Splits.

    root: the folder that holds the data sets; for folder:, csv: and features: the path named there.
    download: fetch what is missing, where the data set can.
    skip_bad: leave out pictures that cannot be read, and count them, instead of stopping.
    size: side in pixels that batches will have; 0 leaves small sets as they are, and means 128
        for photographs.
    private: pictures of one's own are not to be copied into results, nor shown there.
    decode: (name, root, files, lengths of the splits, options of `photographs`) -> what that gives;
        by default all pictures are decoded into the cache.
    """

    root: Path
    download: bool = False
    skip_bad: bool = False
    size: int = 0
    private: bool = False
    decode: Callable[..., Any] | None = None


def default_root() -> Path:
    """The folder of NEARKIN_DATA, else ./data."""
    return Path(os.environ.get("NEARKIN_DATA") or "data")


def folder_with(
    root: Path, markers: Sequence[str], name: str, below: Sequence[str]
) -> tuple[Path, str]:
    """The first of root and root/below that holds a marker, and that marker."""
    folders = [root, *(root / each for each in below)]
    for marker in markers:
        for folder in folders:
            if (folder / marker).exists():
                return folder, marker
    raise Absent(
        f"{name}: no {' or '.join(markers)} in {' or '.join(map(str, folders))}; give the folder "
        f"with --root or NEARKIN_DATA, and see `nearkin data where {name}`"
    )
