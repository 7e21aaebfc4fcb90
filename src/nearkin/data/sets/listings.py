"""From lists of picture files to splits: decoded once, small ones gathered into one tensor."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nearkin.data.cache import Source, photographs
from nearkin.data.photographs import Photographs, stored_side
from nearkin.data.request import Request
from nearkin.data.splits import Split, Splits, chosen_classes, halves

LEFT_OUT = "bad pictures left out:"
SMALL = 105  # pixels: pictures that are all of one size up to this live in memory


@dataclass(frozen=True)
class Listing:
    """The files of one split, each with the number of its class."""

    files: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(
        cls, pairs: Iterable[tuple[str, Any]], names: Mapping[Any, str] | None = None
    ) -> Listing:
        """From (file, class) pairs; classes are sorted, and called by their names if they have."""
        pairs = list(pairs)
        found = sorted({kind for _, kind in pairs})
        numbers = {kind: number for number, kind in enumerate(found)}
        files = tuple(file for file, _ in pairs)
        classes = tuple(str(names[kind] if names else kind) for kind in found)
        return cls(files, tuple(numbers[kind] for _, kind in pairs), classes)

    def of_classes(self, chosen: range) -> Listing:
        """The files of these classes, which become classes 0, 1, ..."""
        pairs = [
            (file, label - chosen.start)
            for file, label in zip(self.files, self.labels, strict=True)
            if label in chosen
        ]
        files, labels = zip(*pairs, strict=True) if pairs else ((), ())
        return Listing(files, labels, self.classes[chosen.start : chosen.stop])


def in_halves(name: str, whole: Listing) -> dict[str, Listing]:
    """The first half of the classes to train on and the second to test on, as the field does."""
    first, rest = halves(len(whole.classes), name)
    return {"train": whole.of_classes(first), "query": whole.of_classes(rest)}


def assembled(
    name: str,
    root: Path,
    listings: Mapping[str, Listing],
    request: Request,
    *,
    channels: int = 3,
    variant: str = "",
    unused: tuple[str, ...] = (),
    showable: bool = False,
    halved: bool = False,
    source: Source | None = None,
) -> Splits:
    """The listings "train", "query" and, where it is apart, "gallery", with their pictures.

    Training and test may have the same classes, or none in common, or some: the variant says so.
    A class of which no picture can be read is told and left out.
    """
    files = [file for listing in listings.values() for file in listing.files]
    decode = photographs
    if request.decode:
        decode = partial(request.decode, lengths=[len(one.files) for one in listings.values()])
    pictures, kept = decode(
        name.partition(":")[0],
        root,
        files,
        short_side=stored_side(request.size),
        channels=channels,
        skip_bad=request.skip_bad,
        source=source,
    )
    inputs = small(pictures, request.size)
    left_out = f"{LEFT_OUT} {len(files) - len(kept)}" if len(kept) < len(files) else ""

    splits = {}
    first = 0
    for part, listing in listings.items():
        own = kept[(kept >= first) & (kept < first + len(listing.files))]
        where = torch.searchsorted(kept, own)
        names = tuple(printable(files[i]) for i in own.tolist())
        labels = torch.tensor(listing.labels, dtype=torch.int64)[own - first]
        split = Split(inputs[where], labels, listing.classes, names)
        splits[part] = with_pictures(split, f"{name}: {part}")
        first += len(listing.files)
    gallery = splits.setdefault("gallery", splits["query"])
    known, tested = set(splits["train"].classes), {*splits["query"].classes, *gallery.classes}
    mixed = known & tested and not tested <= known
    some = f"{len(known & tested)} of {len(tested)} test classes are known" if mixed else ""
    return Splits(
        name,
        **splits,
        variant=", ".join(filter(None, [shapes(pictures), variant, some, left_out])),
        shared_classes=tested <= known,
        mixed_classes=bool(mixed),
        showable=showable,
        halved=halved,
        unused=unused,
    )


def with_pictures(split: Split, name: str) -> Split:
    """The split with those of its classes that have pictures; the others are told."""
    present = split.labels.unique()
    if len(present) == len(split.classes):
        return split
    if not len(present):
        raise ValueError(f"{name}: no picture can be read")
    lost = [kind for i, kind in enumerate(split.classes) if i not in set(present.tolist())]
    warnings.warn(
        f"{name}: {len(lost)} of {len(split.classes)} classes are left out, as none of their "
        f"pictures can be read, such as {lost[0]}",
        stacklevel=4,
    )
    return chosen_classes(split, present.tolist())


def printable(name: str) -> str:
    r"""A file's name as text that can be printed: bytes that are no Unicode as escapes.

    >>> printable("a\udcff.jpg")
    'a\\xff.jpg'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def small(pictures: Photographs, size: int) -> Tensor | Photographs:
    """Small pictures of one size as a tensor (N, C, H, W), one channel if they are grey.

    At this size, unless it is 0; larger pictures stay as they are.
    """
    heights, widths = pictures.heights, pictures.widths
    alike = len(heights.unique()) == len(widths.unique()) == 1
    if not alike or max(int(heights[0]), int(widths[0])) > SMALL:
        return pictures
    parts = [pictures[indices].dense() for indices in torch.arange(len(pictures)).split(1024)]
    if all((part == part[:, :1]).all() for part in parts):
        parts = [part[:, :1] for part in parts]
    if size and (size, size) != (int(heights[0]), int(widths[0])):
        parts = [
            F.interpolate(part, (size, size), mode="bilinear", antialias=True) for part in parts
        ]
    return torch.cat(parts)


def shapes(pictures: Photographs) -> str:
    """The size of the stored pictures in words."""
    heights, widths = pictures.heights, pictures.widths
    if len(heights.unique()) == len(widths.unique()) == 1:
        return f"all {int(widths[0])} x {int(heights[0])} px"
    short = torch.minimum(heights, widths)
    return f"many shapes, short side {int(short.min())} to {int(short.max())} px"


def pictures_left_out(variant: str) -> int:
    """How many pictures a data set was loaded without, as its variant has it.

    >>> pictures_left_out("full frames; bad pictures left out: 3")
    3
    """
    found = re.search(re.escape(LEFT_OUT) + r" (\d+)", variant)
    return int(found[1]) if found else 0
