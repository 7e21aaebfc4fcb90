"""`nearkin data`: where a data set comes from, its archive unpacked, its files checked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional


def data(
    act: Positional[Literal["where", "unpack", "check"]],
    name: Positional[str],
    root: Path | None = None,
) -> None:
    """Say where to get a data set, unpack its archive, or check its files.

    Example: nearkin data where sop

    Example: nearkin data unpack CUB_200_2011.tgz --root DIR

    Example: nearkin data check cub --root DIR

    Args:
        act: where, unpack or check.
        name: a data set from `nearkin list`; of unpack, a zip or tar archive.
        root: folder of the data sets; by default NEARKIN_DATA, else ./data.
    """
    from nearkin.data import check, default_root, unpack, where

    if act == "where":
        print(where(name))
        return
    if act == "unpack":
        unpack(Path(name), root or default_root())
        print(f"{name}: unpacked into {root or default_root()}")
        return
    verdict = check(name, root)
    print(verdict)
    if not verdict.sound:
        raise SystemExit(2)
