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

from nearkin.data.sets.listings import Listing


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
            "9c0e4715b06099c33c64786f0bdce417ee90649cee7ab91f52b103b678dc8255",
            {"official": "e9145de02cd177f4765ebd895f0e5e7928d1418bd4ec87cf4eef08397b7afd56"},
        ),
        "query": Part(
            5_924,
            100,
            "101.White_Pelican",
            "200.Common_Yellowthroat",
            "f30985a311e5a1be6a1b29c5827088c18c123262008ed9dfc27fae5757ca269c",
            {"official": "fcc6388c01e330912ea3dcb9615b24deaf73f6c04d5d8270e014e581cb181fab"},
        ),
    },
    "cars": {
        "train": Part(
            8_054,
            98,
            "AM General Hummer SUV 2000",
            "Eagle Talon Hatchback 1998",
            "d7b38f6c466eb92baa98e0a45ef5e4263f7f1225903b9cf514cbf863a3458ab6",
            {
                "devkit": "0a18e8aa3cea270c789ddec8758c7949682de3c0f063df7b3824c9d4e7cd5c01",
                "car_ims": "7677c92bccc2c0d1064ef905e0e6e8b13750d7f69fd96186e38b68a49d04e495",
            },
        ),
        "query": Part(
            8_131,
            98,
            "FIAT 500 Abarth 2012",
            "smart fortwo Convertible 2012",
            "ec68c054d26588522f80c37787b52af6820aa73e20fc67815e1f482325446a47",
            {
                "devkit": "45907d881cb2c1b4072c5965e6dfa50bafcf7be4354ed2263109c6219f20a243",
                "car_ims": "5df9ea71fce53d9b552d41b414b0be6adb41de53e745961132ed1eeedd1222bb",
            },
        ),
    },
    "sop": {
        "train": Part(
            59_551,
            11_318,
            "1",
            "11318",
            "06ff756aeb1aa9eb53bc29579269e503a6c874a2dbdc2b3527ddc34ff98fb6b1",
            {"official": "206025ad5104e8e69a45455e4be0e4d017d66864d63e3b4f29e058eeadc460de"},
        ),
        "query": Part(
            60_502,
            11_316,
            "11319",
            "22634",
            "5249f955ce6e85ad35a23feac7e1a2763cbf076590af9d4e07658fcd79b68db0",
            {"official": "fb6aeffdff5b11b6f0a013cf5f3ce9748be3958b52848c3e768e05b9d80d05f3"},
        ),
    },
    "inshop": {
        "train": Part(
            25_882,
            3_997,
            "id_00000002",
            "id_00007981",
            "c3e611f5dfac790cc901d6b3e290d037f0db23061926e6b3db31e8c9d87635a9",
            {"official": "97f55dbf8bf6573b4f8c65d328a2608ca96ff5a68dae46afe52880b3d61db802"},
        ),
        "query": Part(
            14_218,
            3_985,
            "id_00000001",
            "id_00007982",
            "157996034cb69b26cf32992f1b8e3bf2ebed470cf664b6e61b193af96f7300b3",
            {"official": "09b29db63e1012cde7f742bb0c0d7a0f498f5640ad0b3241a0e3e76806be6a26"},
        ),
        "gallery": Part(
            12_612,
            3_985,
            "id_00000001",
            "id_00007982",
            "83dcf3c228e6bf7a7add0acd45d313be22b3f10b3cef494370029c26ffb74db9",
            {"official": "485006b09852652a7d80ba84d6f3efd9f741aee309d4c8255ed533b29c3730c4"},
        ),
    },
}


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
