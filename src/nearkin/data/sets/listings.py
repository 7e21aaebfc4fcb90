"""From lists of picture files to splits: decoded once, small ones gathered into one tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nearkin.data.cache import photographs
from nearkin.data.photographs import Photographs, stored_side
from nearkin.data.sources import Request
from nearkin.data.splits import Split, Splits

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


def assembled(
    name: str,
    root: Path,
    listings: Mapping[str, Listing],
    request: Request,
    *,
    channels: int = 3,
    variant: str = "",
    shared_classes: bool = False,
) -> Splits:
    """The listings "train", "query" and, where it is apart, "gallery", with their pictures."""
    files = [file for listing in listings.values() for file in listing.files]
    cache_name = name.partition(":")[0]
    pictures, kept = photographs(
        cache_name,
        root,
        files,
        short_side=stored_side(request.size),
        channels=channels,
        skip_bad=request.skip_bad,
    )
    inputs = small(pictures, request.size)
    left_out = f"{LEFT_OUT} {len(files) - len(kept)}" if len(kept) < len(files) else ""

    splits = {}
    first = 0
    for part, listing in listings.items():
        own = kept[(kept >= first) & (kept < first + len(listing.files))]
        where = torch.searchsorted(kept, own)
        names = tuple(files[i] for i in own.tolist())
        labels = torch.tensor(listing.labels)[own - first]
        splits[part] = Split(inputs[where], labels, listing.classes, names)
        first += len(listing.files)
    gallery = splits.get("gallery", splits["query"])
    described = ", ".join(filter(None, [shapes(pictures), variant, left_out]))
    return Splits(name, splits["train"], splits["query"], gallery, described, shared_classes)


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
