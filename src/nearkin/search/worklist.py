"""What a person should look at in a labelled set: wrong labels, duplicates, leaks, hard classes.

Everything is read off the nearest neighbours of each item, which `nearkin.neighbours` finds
exactly. Dimensions: N items, K neighbours of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

MOST = 200  # entries of a kind
TWIN = 0.1
"""Items nearer than this share of the median distance to a nearest one are near-duplicates."""
VOTES = 10


@dataclass(frozen=True)
class Entry:
    """One thing to look at: items by number, and why; `label` is what the neighbours would say."""

    items: tuple[int, ...]
    why: str
    label: str = ""


@dataclass
class Worklist:
    """Entries by kind, the most pressing first."""

    mislabelled: list[Entry] = field(default_factory=list)
    duplicates: list[Entry] = field(default_factory=list)
    leaks: list[Entry] = field(default_factory=list)
    hard: list[Entry] = field(default_factory=list)
    confused: list[Entry] = field(default_factory=list)


def worklist(
    indices: np.ndarray,
    distances: np.ndarray,
    labels: Sequence[str | None],
    splits: Sequence[str] | None = None,
    digests: Sequence[str] | None = None,
) -> Worklist:
    """What the neighbours (N, K) of each item tell.

    Args:
        indices: the nearest items of each, nearest first.
        distances: to these, in any unit that is 0 for one and the same place.
        labels: of the items; None: it has none.
        splits: train, test, ..., of the items, where they are told apart.
        digests: of the files, where equal ones are known to be duplicates.
    """
    found = Worklist()
    found.duplicates, found.leaks = twins(indices, distances, splits, digests)
    kinds = np.array(["" if label is None else label for label in labels], dtype=object)
    if len(set(kinds) - {""}) > 1:
        found.mislabelled = mislabelled(indices, kinds)
        found.hard, found.confused = classes(indices, kinds)
    return found


def mislabelled(indices: np.ndarray, kinds: np.ndarray) -> list[Entry]:
    """Items of whose ten nearest most have one other label, and few their own."""
    entries = []
    near = indices[:, :VOTES]
    for item, around in enumerate(near):
        votes = Counter(kind for kind in kinds[around] if kind)
        own = votes.pop(kinds[item], 0)
        if not kinds[item] or not votes:
            continue
        other, count = max(votes.items(), key=lambda vote: (vote[1], vote[0]))
        if count > 2 * own and 2 * count > len(around):
            why = f"{count} of its {len(around)} nearest are {other}, {own} are {kinds[item]}"
            entries.append((own - count, item, Entry((item,), why, other)))
    return [entry for _, _, entry in sorted(entries, key=lambda each: each[:2])[:MOST]]


def twins(
    indices: np.ndarray,
    distances: np.ndarray,
    splits: Sequence[str] | None,
    digests: Sequence[str] | None,
) -> tuple[list[Entry], list[Entry]]:
    """Pairs that are one picture, or nearly; and those of them that lie in two splits."""
    first = distances[:, 0] if distances.shape[1] else np.zeros(0)
    limit = TWIN * float(np.median(first)) if len(first) else 0.0
    pairs: dict[tuple[int, int], float] = {}
    for item, place in zip(*np.nonzero(distances <= limit), strict=True):
        other = int(indices[item, place])
        pairs[min(item, other), max(item, other)] = float(distances[item, place])
    same = {pair for pair in pairs if digests is not None and digests[pair[0]] == digests[pair[1]]}
    if digests is not None:
        by_digest: dict[str, int] = {}
        for item, digest in enumerate(digests):
            if digest and digest in by_digest:
                pair = (by_digest[digest], item)
                pairs[pair] = 0.0
                same.add(pair)
            by_digest.setdefault(digest, item)
    entries, leaks = [], []
    for pair, distance in sorted(pairs.items(), key=lambda each: (each[1], each[0])):
        why = "the same bytes" if pair in same else f"almost the same: at {distance:.3g}"
        entry = Entry((int(pair[0]), int(pair[1])), why)
        if splits is not None and splits[pair[0]] != splits[pair[1]]:
            between = f"{splits[pair[0]]} and {splits[pair[1]]}"
            leaks.append(Entry(entry.items, f"in {between}, {why}"))
        entries.append(entry)
    return entries[:MOST], leaks[:MOST]


def classes(indices: np.ndarray, kinds: np.ndarray) -> tuple[list[Entry], list[Entry]]:
    """Classes whose items' nearest are often of others, and pairs of classes taken for each other.

    An entry's items are those whose nearest neighbour is of another class.
    """
    nearest = kinds[indices[:, 0]]
    known = (kinds != "") & (nearest != "")
    totals = Counter(kinds[known])
    wrong: dict[str, list[int]] = {}
    between: dict[tuple[str, str], list[int]] = {}
    for item in np.nonzero(known & (nearest != kinds))[0].tolist():
        wrong.setdefault(kinds[item], []).append(item)
        between.setdefault((kinds[item], nearest[item]), []).append(item)
    share = {kind: len(items) / totals[kind] for kind, items in wrong.items()}
    hard = [
        Entry(
            tuple(wrong[kind]),
            f"{kind}: of {totals[kind]} items {len(wrong[kind])} are nearest to another class",
            kind,
        )
        for kind in sorted(share, key=lambda kind: (-share[kind], kind))
    ]
    confused = [
        Entry(tuple(items), f"{len(items)} of {totals[a]} of {a} are nearest to {b}", b)
        for (a, b), items in sorted(between.items(), key=lambda each: (-len(each[1]), each[0]))
        if len(items) > 1
    ]
    return hard[:MOST], confused[:MOST]
