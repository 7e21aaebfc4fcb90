"""What the official benchmarks hold: so a wrong split, or half a download, is seen on loading.

Of each split: images, classes, the first and the last class, and two SHA-256: of the number of
images of each class, in any layout, and of the sorted list of files, in those that name them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from nearkin.data.listings import Listing


@dataclass(frozen=True)
class Part:
    """One split of a benchmark."""

    images: int
    classes: int
    first: str
    last: str
    counts: str
    files: Mapping[str, str]


MANIFESTS: dict[str, dict[str, Part]] = {
    "cub": {
        "train": Part(
            5_864,
            100,
            "001.Black_footed_Albatross",
            "100.Brown_Pelican",
            "4fee20c68def9bc2728305bd041427331a39c998142b8790f844b9c3b137afb9",
            {"official": "e9145de02cd177f4765ebd895f0e5e7928d1418bd4ec87cf4eef08397b7afd56"},
        ),
        "query": Part(
            5_924,
            100,
            "101.White_Pelican",
            "200.Common_Yellowthroat",
            "f1f2bdc08d8c89df1eaa594d043958085bd2270dea3daa71cde1d31bcd43d36e",
            {"official": "fcc6388c01e330912ea3dcb9615b24deaf73f6c04d5d8270e014e581cb181fab"},
        ),
    },
    "cars": {
        "train": Part(
            8_054,
            98,
            "AM General Hummer SUV 2000",
            "Eagle Talon Hatchback 1998",
            "fbb5cdf9d34ca86510dffc245198a0c730dd95fc2a27a0625dacea93e8692ad3",
            {"devkit": "0a18e8aa3cea270c789ddec8758c7949682de3c0f063df7b3824c9d4e7cd5c01"},
        ),
        "query": Part(
            8_131,
            98,
            "FIAT 500 Abarth 2012",
            "smart fortwo Convertible 2012",
            "034f15eb47ba8dc1c6ce00bcd600eff70c156cc5a855bd903c105506f675ba25",
            {"devkit": "45907d881cb2c1b4072c5965e6dfa50bafcf7be4354ed2263109c6219f20a243"},
        ),
    },
    "sop": {
        "train": Part(
            59_551,
            11_318,
            "1",
            "11318",
            "ae925a3f81dee5f3268dd35a8c8321cd4474cf96e57b362dbfecc821e7496d2d",
            {"official": "206025ad5104e8e69a45455e4be0e4d017d66864d63e3b4f29e058eeadc460de"},
        ),
        "query": Part(
            60_502,
            11_316,
            "11319",
            "22634",
            "a1aa3b1caecce340c73e3c51d31a3df557a84602decd7d7b9ef842a20172b6c7",
            {"official": "fb6aeffdff5b11b6f0a013cf5f3ce9748be3958b52848c3e768e05b9d80d05f3"},
        ),
    },
    "inshop": {
        "train": Part(
            25_882,
            3_997,
            "id_00000002",
            "id_00007981",
            "ed793f952bd0f7e8f0b027171d818fccc9560962e4cae309e0fae173743d48a4",
            {"official": "97f55dbf8bf6573b4f8c65d328a2608ca96ff5a68dae46afe52880b3d61db802"},
        ),
        "query": Part(
            14_218,
            3_985,
            "id_00000001",
            "id_00007982",
            "303bf1248ab3e3153704597b9938d112e6adb70c4be02052e75174b51b7181dd",
            {"official": "09b29db63e1012cde7f742bb0c0d7a0f498f5640ad0b3241a0e3e76806be6a26"},
        ),
        "gallery": Part(
            12_612,
            3_985,
            "id_00000001",
            "id_00007982",
            "7142b887bc50af6ca918615a9acf966ef59c620137b504c857d7dd1b1ff00bde",
            {"official": "485006b09852652a7d80ba84d6f3efd9f741aee309d4c8255ed533b29c3730c4"},
        ),
    },
}


def differences(name: str, layout: str, splits: Mapping[str, Listing]) -> str:
    """How the listings differ from the manifest, in words; "" where they do not."""
    found = []
    for split, wanted in MANIFESTS[name].items():
        got = part_of(splits[split], layout)
        named = layout in wanted.files
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
            found.append(f"{split} has other numbers of images by class")
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
    """SHA-256 of the number of images of each class, one a line, in the order of the classes."""
    counts = Counter(listing.labels)
    return sha256([str(counts[label]) for label in range(len(listing.classes))])


def sha256(lines: list[str]) -> str:
    """Of the lines, each with its line end."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
