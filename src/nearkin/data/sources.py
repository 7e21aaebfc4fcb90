"""Where data sets are looked for, and what to say when they are not there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """What a data set is asked for; every data set is a function (Request) -> Splits.

    root: the folder that holds the data sets (or, for folder: and features:, the path named there).
    download: fetch what is missing, where the data set can.
    skip_bad: leave out pictures that cannot be read, and count them, instead of stopping.
    size: side in pixels; 0 leaves small sets as they are, and means 128 for photographs.
    """

    root: Path
    download: bool = False
    skip_bad: bool = False
    size: int = 0


def default_root() -> Path:
    """The folder of NEARKIN_DATA, else ./data."""
    return Path(os.environ.get("NEARKIN_DATA") or "data")


def folder_with(root: Path, marker: str, name: str, *below: str) -> Path:
    """The first of root and root/below that holds the marker; a ValueError says where it looked."""
    folders = [root, *(root / each for each in below)]
    for folder in folders:
        if (folder / marker).exists():
            return folder
    looked = " or ".join(str(folder) for folder in folders)
    raise ValueError(
        f"{name}: no {marker} in {looked}; give the folder with --root or NEARKIN_DATA, "
        f"and see `nearkin data where {name}`"
    )
