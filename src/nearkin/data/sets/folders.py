"""Pictures in folders: a person's own, folder:PATH, and Omniglot's alphabets."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from glob import glob
from pathlib import Path

from torch import Tensor

from nearkin.data.pictures import ENDINGS
from nearkin.data.sets.listings import Listing, assembled
from nearkin.data.sources import Request, folder_with
from nearkin.data.splits import Split, Splits, halves

PARTS = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
"""What a folder of class folders may be called, in any case, and which part it then is."""
LAYOUT = "wanted class folders, or train/ beside test/ or val/ (one of each) with class folders"


def folder(request: Request) -> Splits:
    """A folder of class folders, or one that holds train/ and test/ with class folders each.

    Without train/ and test/ the first half of the sorted classes trains and the rest tests. With
    them the two may have the same classes, or must have none in common. Where val/ (or valid/,
    validation/) stands in place of test/, it is tested on; beside test/ it is not used. The variant
    says so.
    """
    root = request.root
    name = f"folder:{root}"
    if not root.is_dir():
        raise ValueError(f"{name}: no such folder")
    entries = [path for path in sorted(root.iterdir()) if not path.name.startswith(".")]
    parts = parts_among(entries, name)
    used = [parts["train"], parts.get("test") or parts["val"]] if parts else []
    beside = [p.name for p in entries if (p.name not in used if parts else not p.is_dir())]
    if beside:
        said = " and ".join(f"{part}/" for part in used) or "class folders"
        warnings.warn(
            f"{name}: only {said} are used, not {len(beside)} beside, such as {beside[0]}",
            stacklevel=2,
        )
    if parts:
        train, test = (listed(name, root, part) for part in used)
        variant = f"{parts['val']}/ not used" if "val" in parts else ""
        return assembled(
            name,
            root,
            {"train": train, "query": test},
            request,
            variant=variant if "test" in parts else f"tested on {parts['val']}/",
            shared_classes=train.classes == test.classes,
        )
    whole = listed(name, root)
    first, rest = halves(len(whole.classes), name)
    listings = {"train": whole.of_classes(first), "query": whole.of_classes(rest)}
    return assembled(name, root, listings, request)


def parts_among(entries: list[Path], name: str) -> dict[str, str]:
    """The folder of each part, train and at least one of test and val; none among class folders.

    One alone is a class where it holds pictures, and an error where it holds folders.
    """
    named = [path for path in entries if path.is_dir() and path.name.lower() in PARTS]
    parts = {PARTS[path.name.lower()]: path.name for path in named}
    apart = "train" in parts and len(parts) > 1
    if not apart and not any(holds_only_folders(path) for path in named):
        return {}
    if not apart or len(parts) < len(named):
        got = " and ".join(f"{path.name}/" for path in named)
        raise ValueError(f"{name}: {LAYOUT}, got {got}; a class of that name wants another")
    return parts


def holds_only_folders(folder: Path) -> bool:
    """Whether there are folders in it, and no pictures."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    pictures = any(path.suffix.lower() in ENDINGS for path in inside if path.is_file())
    return any(path.is_dir() for path in inside) and not pictures


def listed(name: str, root: Path, below: str = "") -> Listing:
    """The pictures in the class folders of root/below, sorted; class folders must not be empty."""
    pairs = []
    for kind in sorted(path for path in (root / below).iterdir() if path.is_dir()):
        if kind.name.startswith("."):
            continue
        found = [
            path
            for path in sorted(kind.rglob("*"))
            if path.suffix.lower() in ENDINGS and not hidden(path.relative_to(kind))
        ]
        if not found:
            raise ValueError(f"{name}: no pictures in {kind}")
        pairs += [(path.relative_to(root).as_posix(), kind.name) for path in found]
    if not pairs:
        raise ValueError(f"{name}: no class folders with pictures in {root / below}")
    return Listing.of(pairs)


def hidden(path: Path) -> bool:
    """Whether it, or a folder on its way, is none that a person put there: thumbnails and the like.

    >>> hidden(Path("a/b.jpg")), hidden(Path("a/.thumbnails/b.jpg")), hidden(Path("._b.jpg"))
    (False, True, True)
    """
    return any(part.startswith(".") for part in path.parts)


def omniglot(request: Request) -> Splits:
    """Omniglot: 964 characters of 30 alphabets train, 659 of 20 others test, 20 drawings of each.

    105 x 105 pixels, or the size asked for. Differs: white on black, as MNIST's digits are, so
    that what moves in from outside is background.
    """
    root, _ = folder_with(
        request.root, ["images_background"], "omniglot", ["omniglot-py", "omniglot"]
    )
    listings = {}
    for split, part in (("train", "images_background"), ("query", "images_evaluation")):
        if not (root / part).is_dir():
            raise ValueError(f"omniglot: no {part} in {root}; see `nearkin data where omniglot`")
        drawings = sorted(glob("*/character*/*.png", root_dir=root / part))
        pairs = [(f"{part}/{drawing}", os.path.dirname(drawing)) for drawing in drawings]
        if not pairs:
            raise ValueError(f"omniglot: no ALPHABET/characterNN/*.png in {root / part}")
        listings[split] = Listing.of(pairs)
    variant = "white on black"
    splits = assembled("omniglot", root, listings, request, channels=1, variant=variant)
    train, test = inverted(splits.train), inverted(splits.query)
    return replace(splits, train=train, query=test, gallery=test)


def inverted(split: Split) -> Split:
    """Black and white exchanged."""
    assert isinstance(split.inputs, Tensor)
    return replace(split, inputs=255 - split.inputs)
