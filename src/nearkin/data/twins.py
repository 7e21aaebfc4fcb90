"""Items that stand twice in a data set: the same to the last pixel, or pictures nearly alike.

Copies within a class are a nuisance; copies of two classes mean that one label is wrong; copies in
training and in test, or in query and gallery, make a result better than it is.
Dimensions: N items, M pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nearkin.data.photographs import Photographs, digests_of
from nearkin.data.splits import Split, Splits

SIDE = 16
ALIKE = 0.985
"""Pictures whose grey miniatures of 16 x 16 correlate at least so much are nearly alike. Measured:
500 copies each from CUB and cropped cars, compressed or scaled anew, have 0.985 and more; of 3,000
photographs of each, two by two, none lies between 0.97 and 0.995."""
SMALL = 48  # short side below which other drawings correlate so, too (digits of 28 px: 72 of 4,000)
MOST = 50_000  # pictures among which nearly alike ones are looked for: every pair is compared
BLOCK = 1024


@dataclass(frozen=True)
class Place:
    """Where an item stands: its split, its class, and its name (or number)."""

    split: str
    label: str
    name: str


@dataclass(frozen=True)
class Twins:
    """Pairs of places: equal ones, and pictures nearly alike (None: these were not looked for)."""

    equal: list[tuple[Place, Place]]
    alike: list[tuple[Place, Place]] | None
    note: str = ""  # why they were not

    def facts(self) -> Iterable[tuple[bool | None, str]]:
        """(True where there is nothing to see, None where there is, a line) of each kind."""
        for what, pairs in (("equal", self.equal), ("nearly alike", self.alike)):
            if pairs is None:
                continue
            yield line(f"duplicates, {what}", pairs)
            classes = [(a, b) for a, b in pairs if a.label != b.label]
            if classes:
                yield line(f"of two classes, {what}", classes)
            leaks = [(a, b) for a, b in pairs if a.split != b.split]
            for parts in sorted({(a.split, b.split) for a, b in leaks}):
                there = [(a, b) for a, b in leaks if (a.split, b.split) == parts]
                yield line(f"leaks between {parts[0]} and {parts[1]}, {what}", there)
        if self.note:
            yield True, self.note


def line(what: str, pairs: list[tuple[Place, Place]]) -> tuple[bool | None, str]:
    """How many pairs there are, with the first."""
    if not pairs:
        return True, f"{what}: none"
    (a, b), count = pairs[0], f"{len(pairs):,} pair{'s' * (len(pairs) > 1)}"
    return None, f"{what}: {count}, such as {a.name} ({a.label}) and {b.name} ({b.label})"


def twins(splits: Splits) -> Twins:
    """All pairs of items of a data set that are one, or nearly."""
    parts = {"training": splits.train, "query": splits.query, "gallery": splits.gallery}
    if splits.gallery is splits.query:
        del parts["gallery"]
        parts["test"] = parts.pop("query")
    places = [place for name, split in parts.items() for place in places_of(name, split)]
    pairs = equal([digest for split in parts.values() for digest in digests(split.inputs)])
    near, note = None, ""
    if all(is_picture(split.inputs) for split in parts.values()):
        if len(places) <= MOST:
            small = torch.cat([miniatures(split.inputs) for split in parts.values()])
            near = sorted(set(alike(small)) - set(pairs))
        else:
            note = f"pictures nearly alike: not looked for among more than {MOST:,}"

    def named(found: list[tuple[int, int]]) -> list[tuple[Place, Place]]:
        return [(places[a], places[b]) for a, b in found]

    return Twins(named(pairs), None if near is None else named(near), note)


def places_of(part: str, split: Split) -> list[Place]:
    """The place of each item of a split."""
    names = split.names or [f"{part} {i}" for i in range(len(split))]
    labels = [split.classes[label] for label in split.labels.tolist()]
    return [Place(part, label, name) for label, name in zip(labels, names, strict=True)]


def is_picture(x: object) -> bool:
    """Whether inputs are pictures, and large enough to tell a copy from another one."""
    if isinstance(x, Photographs):
        return not len(x) or int(torch.minimum(x.heights, x.widths).min()) >= SMALL
    return isinstance(x, Tensor) and x.ndim == 4 and min(x.shape[2:]) >= SMALL


def digests(x: object) -> list[bytes]:
    """A digest of each item; of the items of a Dataset, which would all have to be made, none."""
    if isinstance(x, Photographs):
        return [bytes(one) for one in (digests_of(x) if x.digests is None else x.digests).numpy()]
    if not isinstance(x, Tensor):
        return [b""] * len(x)  # type: ignore[arg-type]
    rows = x.detach().cpu().contiguous().view(len(x), -1).view(torch.uint8).numpy()
    return [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]


def equal(digests: list[bytes]) -> list[tuple[int, int]]:
    """Each item with the first that has its digest."""
    first: dict[bytes, int] = {}
    found = [(first.setdefault(digest, i), i) for i, digest in enumerate(digests) if digest]
    return [(a, b) for a, b in found if a != b]


def miniatures(x: Photographs | Tensor) -> Tensor:
    """Grey miniatures (N, 256) of mean 0 and length 1; of one grey all over: zeros."""
    if isinstance(x, Tensor):
        whole = x.float().mean(1, keepdim=True)
        small = F.interpolate(whole, (SIDE, SIDE), mode="area").flatten(1)
    else:
        corner = torch.zeros_like(x.heights)
        cuts = x.cuts(torch.stack([corner, corner, x.heights, x.widths], 1))
        pieces = [F.adaptive_avg_pool2d(cut.float().mean(0)[None], SIDE).flatten() for cut in cuts]
        small = torch.stack(pieces) if pieces else torch.empty(0, SIDE * SIDE)
    centred = small - small.mean(1, keepdim=True)
    flat = centred.norm(dim=1, keepdim=True) < SIDE  # less than one grey value, root mean square
    return F.normalize(centred).masked_fill(flat, 0.0)


def alike(small: Tensor) -> list[tuple[int, int]]:
    """Pairs (a < b) of miniatures that correlate by ALIKE or more."""
    found: list[tuple[int, int]] = []
    for start in range(0, len(small), BLOCK):
        products = small[start : start + BLOCK] @ small[start:].T
        a, b = (products >= ALIKE).nonzero().T
        pairs = torch.stack([a, b], 1)[a < b] + start
        found += [(int(one), int(other)) for one, other in pairs.tolist()]
    return found
