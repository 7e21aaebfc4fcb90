"""What maps and galleries show, as values that the page and the static pictures both draw.

Dimensions: n items drawn, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from pathlib import Path

import numpy as np
import torch

from nearkin.answers import Gallery, Maps
from nearkin.measure import neighbours
from nearkin.report.canvas import COLOURS
from nearkin.report.items import Items, plane, read
from nearkin.runs.row import Row
from nearkin.studies.shared.reading import headline

CLASS_COLOURS = (*COLOURS, "#A59B00", "#8A8A8A")
"""of the first ten classes of a map; all others are grey"""
OTHER = "#C4C4C4"
RIGHT, WRONG = "#009E73", "#D55E00"
MARGIN = 0.04  # of a map's side, on each side


@dataclass(frozen=True)
class Panel:
    """One map: n points in a square, (0, 0) its lower left corner and (1, 1) its upper right.

    points: (n, 2).  ruler: a round length in units of the embedding, and its share of the side.
    labels: for each coloured class its number and where its tag stands.
    """

    name: str
    caption: str
    items: Items
    points: np.ndarray
    ruler: tuple[str, float]
    labels: tuple[tuple[int, float, float], ...]


def panels(maps: Maps, store: Path) -> list[Panel | str]:
    """The maps of a figure; the name alone where that run's embeddings are not kept here."""
    return [
        panel(name, row, items) if (items := read(row, store)) else name for name, row in maps.rows
    ]


def panel(name: str, row: Row, items: Items) -> Panel:
    """The map of one run: both axes to the same scale, the whole set inside the square."""
    flat = plane(items.x)
    low, high = flat.min(0), flat.max(0)
    side = float((high - low).max()) or 1.0
    square = (flat - (low + high) / 2) / side * (1 - 2 * MARGIN) + 0.5
    note = "" if items.x.shape[1] == 2 else f"{items.x.shape[1]}-D, two principal components"
    metric = headline([row])
    value = metric.of(row)
    score = "" if value is None else f"{metric.name} {100 * value:.1f} %"
    length = round_length(side / 4)
    return Panel(
        name=name,
        caption=", ".join(filter(None, [score, note])),
        items=items,
        points=square,
        ruler=(f"{length:g}", length / side * (1 - 2 * MARGIN)),
        labels=class_labels(square, items.labels),
    )


def round_length(length: float) -> float:
    """The largest of 1, 2, 5, 10, ... (any power of ten) that is not above the length.

    >>> round_length(7.3), round_length(0.31)
    (5.0, 0.2)
    """
    unit = 10.0 ** floor(log10(length))
    return float(f"{unit * max(m for m in (1, 2, 5) if m * unit <= length * (1 + 1e-9)):.1g}")


def tags(classes: Sequence[str]) -> list[str]:
    """What stands on a map for each coloured class: its name if all are short, else a letter.

    >>> tags(["0", "1"]), tags(["Albatross", "Auk"])
    (['0', '1'], ['A', 'B'])
    """
    coloured = classes[: len(CLASS_COLOURS)]
    short = all(len(name) <= 3 for name in coloured)
    return list(coloured) if short else [chr(ord("A") + i) for i in range(len(coloured))]


def class_labels(points: np.ndarray, labels: np.ndarray) -> tuple[tuple[int, float, float], ...]:
    """Each coloured class's tag at its median point, those that would overlap pushed apart."""
    classes = [c for c in np.unique(labels) if c < len(CLASS_COLOURS)]
    places = np.array([np.median(points[labels == c], 0) for c in classes])
    apart = 0.07
    for _ in range(50):
        gaps = places[:, None] - places[None]  # (C, C, 2)
        distance = np.hypot(*gaps.T).T
        near = (distance < apart) & ~np.eye(len(places), dtype=bool)
        if not near.any():
            break
        # two tags on the same spot part along a direction of their own
        angle = np.arange(len(places)) * 2.4
        gaps[distance == 0] = np.stack([np.cos(angle), np.sin(angle)], 1)[
            np.nonzero(distance == 0)[0]
        ]
        unit = gaps / np.maximum(np.hypot(*gaps.T).T, 1e-9)[..., None]
        push = np.where(near, (apart - distance) / 2, 0)[..., None] * unit
        places = np.clip(places + push.sum(1), 0.05, 0.95)
    return tuple((int(c), float(x), float(y)) for c, (x, y) in zip(classes, places, strict=True))


@dataclass(frozen=True)
class Question:
    """An item, the items found nearest to it, and which of them are of its class."""

    item: int
    found: tuple[int, ...]
    right: tuple[bool, ...]


@dataclass(frozen=True)
class Answers:
    """Some right and some wrong answers of one run, and how many of all were right.

    confused: the pairs of classes that are mistaken most often, at most ten: (class, the class that
    it is taken for, how many of its items, of how many).
    """

    items: Items
    wrong: tuple[Question, ...]
    right: tuple[Question, ...]
    hits: int
    queries: int
    confused: tuple[tuple[str, str, int, int], ...] = ()

    def groups(self) -> list[tuple[str, tuple[Question, ...]]]:
        """The wrong and the right ones, under their headings."""
        return [("The nearest is wrong", self.wrong), ("The nearest is right", self.right)]

    def summary(self) -> str:
        pictured = ""
        if self.items.forbidden:
            pictured = " Its pictures are not ours to show."
        elif self.items.pictures is None:
            pictured = " This run kept no pictures."
        return (
            f"First the item asked about, then those nearest to it among {len(self.items.x):,} "
            f"items; the nearest is of its class for {self.hits:,} of {self.queries:,}.{pictured}"
        )


def answers(gallery: Gallery, store: Path, count: int = 6, k: int = 5) -> Answers | None:
    """`count` wrong and `count` right answers, each with its k nearest among the items drawn.

    One of each class in turn, those with the most such answers first. None where the embeddings
    are not kept here, or no two of them are of one class.
    """
    items = read(gallery.row, store)
    if items is None or len(items.x) < 2:
        return None
    metric = gallery.row.metric
    found = neighbours(torch.from_numpy(items.x), min(k, len(items.x) - 1), metric=metric).indices
    found = found.numpy()
    right = items.labels[found] == items.labels[:, None]  # (n, k)
    kin = np.bincount(items.labels)[items.labels] > 1  # has anyone to be found
    if not kin.any():
        return None
    first = {
        outcome: tuple(
            Question(int(i), tuple(map(int, found[i])), tuple(map(bool, right[i])))
            for i in in_turn(np.nonzero(kin & (right[:, 0] == outcome))[0], items.labels)[:count]
        )
        for outcome in (False, True)
    }
    hits, queries = int(right[kin, 0].sum()), int(kin.sum())
    pairs = confusions(items.labels[kin], items.labels[found[kin, 0]], items.classes)
    return Answers(items, first[False], first[True], hits, queries, pairs)


def confusions(
    labels: np.ndarray, nearest: np.ndarray, classes: Sequence[str], most: int = 10
) -> tuple[tuple[str, str, int, int], ...]:
    """The pairs of classes that are mistaken most often, of any number of classes.

    >>> confusions(np.array([0, 0, 0, 1, 1]), np.array([1, 1, 0, 1, 0]), ["cat", "fox"])
    (('cat', 'fox', 2, 3), ('fox', 'cat', 1, 2))
    """
    wrong = labels != nearest
    pairs, counts = np.unique(
        np.stack([labels[wrong], nearest[wrong]], 1), axis=0, return_counts=True
    )
    sizes = np.bincount(labels, minlength=len(classes))
    order = np.argsort(-counts, kind="stable")[:most]
    return tuple(
        (classes[int(a)], classes[int(b)], int(count), int(sizes[a]))
        for (a, b), count in zip(pairs[order], counts[order], strict=True)
    )


def in_turn(items: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The items reordered: the first of every class, then the second of every class, ...

    Among classes, those with the most items come first.

    >>> in_turn(np.array([0, 1, 2, 3]), np.array([5, 7, 7, 8]))
    array([1, 0, 3, 2])
    """
    kinds = labels[items]
    turn = np.array([np.sum(kinds[:i] == kind) for i, kind in enumerate(kinds)], int)
    many = np.bincount(kinds)[kinds] if len(kinds) else turn
    return items[np.lexsort((kinds, -many, turn))]
