"""folder:PATH: a person's own pictures in folders, whose names are their classes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from functools import partial
from pathlib import PurePosixPath

from nearkin.data.pictures import HEIC
from nearkin.data.request import Absent, Request
from nearkin.data.sets.listings import Listing, assembled, in_halves
from nearkin.data.sets.tree import Tree, classes_of, doubt, hidden, walk
from nearkin.data.splits import Splits
from nearkin.data.terms import holds_others_pictures

PARTS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "query": ("query", "queries", "probe"),
    "gallery": ("gallery",),
    "val": ("val", "valid", "validation", "dev"),
}
"""Which part a folder of class folders is, by its name in any case."""
PART_OF = {name: part for part, names in PARTS.items() for name in names}
LAYOUT = (
    "wanted class folders, or train/ beside test/, val/, or query/ with gallery/ (one of each) "
    "with class folders"
)


def folder(request: Request, reading: str = "") -> Splits:
    """A folder of class folders, or one that holds train/ and test/ with class folders each.

    Without train/ and test/ the first half of the sorted classes trains and the rest tests. Where
    val/ stands in place of test/, it is tested on; beside test/ it is not used. query/ and gallery/
    stand in place of test/ as well. The variant says so.

    Args:
        reading: which folder on the way to a picture names its class: "top", the first; "parent",
            the last; "nested", all of them, as fish/trout. By default the first, and an error
            where folders in folders leave a doubt.
    """
    root = request.root
    name = f"{reading or 'folder'}:{root}"
    if not root.is_dir():
        if root.exists():
            raise ValueError(f"{name}: wanted a folder, a .csv or an .npz file, got another file")
        raise Absent(f"{name}: no such folder")
    tree = walk(root)
    if not tree.pictures:
        raise ValueError(f"{name}: no class folders with pictures in {root}{unread(tree)}")
    refuse_parts_as_classes(tree, name)
    parts = parts_among(tree, name)
    used = used_parts(parts)
    if used:
        listings = {split: listed(name, tree, reading, part) for split, part in used.items()}
    else:
        listings = in_halves(name, listed(name, tree, reading, ""))
    unused = tell_unused(name, tree, used)
    variants = [f"classes by {reading} folders"] if reading else []
    variant = ", ".join([*variants, *variant_of(parts, used)])
    showable = not (request.private or holds_others_pictures(root))
    return assembled(
        name,
        root,
        listings,
        request,
        variant=variant,
        unused=unused,
        showable=showable,
        halved=not used,
    )


nested, parent, top = (partial(folder, reading=reading) for reading in ("nested", "parent", "top"))


def refuse_parts_as_classes(tree: Tree, name: str) -> None:
    """Refuse folders that would be taken for classes and are parts: those whose names differ in
    the part alone, as bounding_box_train/ and bounding_box_test/ of Market-1501; and train/ beside
    test/ in the one folder that is there."""
    tops = folders_of(tree.pictures)
    alike: dict[tuple[str, ...], dict[str, str]] = {}  # other words of a name -> part -> folder
    for top in tops:
        words = re.split(r"[\W_]+", top.lower())
        rest = tuple(word for word in words if word not in PART_OF)
        if rest and len(rest) == len(words) - 1:
            (part,) = {PART_OF[word] for word in words if word in PART_OF}
            alike.setdefault(rest, {})[part] = top
    for parts in alike.values():
        if "train" in parts and len(parts) > 1:
            got = " and ".join(f"{top}/" for top in parts.values())
            raise ValueError(
                f"{name}: {got} are parts, not classes: {LAYOUT}, or a .csv with the columns path, "
                "class and split"
            )
    inner = folders_of(path.partition("/")[2] for path in tree.pictures)
    found = {PART_OF[each.lower()]: each for each in inner if each.lower() in PART_OF}
    if len(tops) == 1 and "train" in found and len(found) > 1:
        got = " and ".join(f"{each}/" for each in found.values())
        raise ValueError(f"{name}: its only folder {tops[0]}/ holds {got}: give {tops[0]}/ itself")


def folders_of(pictures: Iterable[str]) -> list[str]:
    """The first folder on the way to each picture that is in one, each once."""
    return [*dict.fromkeys(path.split("/")[0] for path in pictures if "/" in path)]


def parts_among(tree: Tree, name: str) -> dict[str, str]:
    """The folder of each part; none where the folders are classes.

    One alone is a class where it holds pictures, and an error where it holds folders.
    """
    named = [top for top in folders_of(tree.pictures) if top.lower() in PART_OF]
    parts = {PART_OF[top.lower()]: top for top in named}
    tested = bool({"test", "val"} & set(parts)) or {"query", "gallery"} <= set(parts)
    apart = "train" in parts and tested
    flat = {PurePosixPath(path).parent.as_posix() for path in tree.pictures}
    if not apart and all(top in flat for top in named):
        return {}
    if not apart or len(parts) < len(named):
        got = " and ".join(f"{top}/" for top in named)
        raise ValueError(f"{name}: {LAYOUT}, got {got}; a class of that name wants another")
    return parts


def used_parts(parts: dict[str, str]) -> dict[str, str]:
    """Split -> the folder that it is read from."""
    if not parts:
        return {}
    if {"query", "gallery"} <= set(parts) and "test" not in parts:
        return {split: parts[split] for split in ("train", "query", "gallery")}
    return {"train": parts["train"], "query": parts.get("test") or parts["val"]}


def variant_of(parts: dict[str, str], used: dict[str, str]) -> list[str]:
    """What the variant says of the parts: val/ tested on, or parts that are not used."""
    if parts and used["query"] == parts.get("val"):
        return [f"tested on {parts['val']}/"]
    return [f"{part}/ not used" for part in parts.values() if part not in used.values()]


def listed(name: str, tree: Tree, reading: str, below: str) -> Listing:
    """The pictures of one part with their classes."""
    here = [path for path in tree.pictures if not below or path.startswith(f"{below}/")]
    where = tree.root / below
    if not reading and (group := doubt(here, below)):
        first, every = (
            len({kind for _, kind in classes_of(here, way, below)}) for way in ("top", "nested")
        )
        at = f"{below}/{group}" if below else group
        raise ValueError(
            f"{name}: the pictures of {at}/ lie in folders below it: top:{tree.root} takes "
            f"{group} for a class ({first} classes in {where}), nested:{tree.root} each folder "
            f"inside ({every} classes), parent:{tree.root} each by its own name alone; "
            f"--labels top, nested or parent says which"
        )
    pairs = classes_of(here, reading or "top", below)
    if not pairs:
        raise ValueError(f"{name}: no class folders with pictures in {where}")
    named = {PurePosixPath(path).relative_to(below).parts[0] for path, _ in pairs}
    for path in sorted(where.iterdir()):
        if path.is_dir() and not hidden(path.name) and path.name not in named:
            raise ValueError(f"{name}: no pictures in {path}{unread(tree)}")
    return Listing.of(pairs)


def unread(tree: Tree) -> str:
    """Which pictures are there in formats that are not read, in words; "" where there are none."""
    found = ", ".join(f"{count:,} {kind}" for kind, count in sorted(tree.unread.items()))
    advice = " (pip install nearkin[heic] reads those of phones)" if set(tree.unread) & HEIC else ""
    return f"; not read: {found}{advice}" if found else ""


def tell_unused(name: str, tree: Tree, used: dict[str, str]) -> tuple[str, ...]:
    """What stands in the folder and is not used, a line each; warned of where it may be meant."""
    tops = used.values() or folders_of(tree.pictures)
    names = sorted(path.name for path in tree.root.iterdir() if not hidden(path.name))
    beside = [name for name in names if name not in tops]
    lines = [f"{count:,} {kind}" for kind, count in sorted(tree.unused.items())]
    if beside:
        chosen = " and ".join(f"{part}/" for part in used.values()) or "class folders"
        line = f"only {chosen} are used, not {len(beside)} beside, such as {beside[0]}"
        lines.append(line)
        warnings.warn(f"{name}: {line}", stacklevel=3)
    if tree.unread:
        warnings.warn(f"{name}: left out{unread(tree).replace('; not read:', '')}", stacklevel=3)
    return tuple(lines)
