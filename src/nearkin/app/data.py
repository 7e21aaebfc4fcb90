"""`nearkin data`: where a data set comes from, its archive unpacked, its files checked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from nearkin.app.output import Labels


def data(
    act: Positional[Literal["where", "unpack", "check"]],
    name: Positional[str],
    root: Path | None = None,
    labels: Labels = "",
) -> None:
    """Say where to get a data set, unpack its archive, or check its files.

    Example: nearkin data where sop

    Example: nearkin data unpack CUB_200_2011.tgz --root DIR

    Example: nearkin data check cub --root DIR

    Example: nearkin data check photos/ --labels nested

    Args:
        act: where, unpack or check.
        name: a data set from `nearkin list`, or a folder, .csv or .npz file; of unpack, a zip or
            tar archive.
        root: folder of the data sets; by default NEARKIN_DATA, else ./data.
        labels: which folders on the way to a picture name its class: all (nested), the last
            (parent) or the first (top); by default the first, and an error where that is in doubt.
    """
    from nearkin.data import check, default_root, unpack, where
    from nearkin.data.cache import told_later
    from nearkin.data.sets.catalogue import with_labels

    if act == "where":
        print(where(name))
        return
    if act == "unpack":
        unpack(Path(name), root or default_root())
        print(f"{name}: unpacked into {root or default_root()}")
        return
    with told_later() as told:
        verdict = check(with_labels(name, labels), root)
    print(verdict, *told, sep="\n")
    if not verdict.sound:
        raise SystemExit(2)
