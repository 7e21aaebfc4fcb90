"""What the official benchmarks hold: so a wrong split, or half a download, is seen on loading.

Of each split: images, classes, the first and the last class, and two SHA-256: of the classes with
their numbers of images, in any layout, and of the sorted list of files, in those that name them.
Those of car_ims are known from its numbering, which goes class by class.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nearkin.data.sets.listings import Listing
from nearkin.files import read_json


@dataclass(frozen=True)
class Part:
    """One split of a benchmark."""

    images: int
    classes: int
    first: str
    last: str
    counts: str
    files: Mapping[str, str]


def read_manifests() -> dict[str, dict[str, Part]]:
    """Data set -> split -> what it holds, of manifests.json beside this file."""
    return {
        name: {split: Part(**part) for split, part in splits.items()}
        for name, splits in read_json(Path(__file__).with_suffix(".json")).items()
    }


MANIFESTS = read_manifests()


def differences(name: str, layout: str, splits: Mapping[str, Listing]) -> str:
    """How the listings differ from the manifest, in words; "" where they do not."""
    found = []
    for split, wanted in MANIFESTS[name].items():
        got = part_of(splits[split], layout)
        named = layout in wanted.files  # class folders are not: their order is not the official one
        if (got.images, got.classes) != (wanted.images, wanted.classes):
            found.append(
                f"{split} has {got.images:,} images of {got.classes:,} classes instead of "
                f"{wanted.images:,} of {wanted.classes:,}"
            )
        elif named and (got.first, got.last) != (wanted.first, wanted.last):
            found.append(
                f"{split} has the classes {got.first} to {got.last} instead of "
                f"{wanted.first} to {wanted.last}"
            )
        elif got.counts != wanted.counts:
            found.append(f"{split} has other classes, or other numbers of images of them")
        elif named and got.files[layout] != wanted.files[layout]:
            found.append(f"{split} has other file names")
    return "; ".join(found)


def part_of(listing: Listing, layout: str) -> Part:
    """The manifest of a listing."""
    classes = listing.classes
    files = {layout: sha256(sorted(listing.files))}
    counts = class_sizes(listing)
    return Part(len(listing.files), len(classes), classes[0], classes[-1], counts, files)


def class_sizes(listing: Listing) -> str:
    """SHA-256 of each class with its number of images, one a line, sorted.

    Of its name count letters and digits alone: no folder can be called Ram C/V Cargo Van.
    """
    counts = Counter(listing.labels)
    plain = ["".join(filter(str.isalnum, name)).lower() for name in listing.classes]
    return sha256(sorted(f"{name} {counts[label]}" for label, name in enumerate(plain)))


def sha256(lines: list[str]) -> str:
    """Of the lines, each with its line end."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
