"""`nearkin data check`: everything that is right and wrong with a data set, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from unicodedata import category, normalize

import torch
from rich.console import Console
from rich.progress import track

from nearkin.data.pictures import BadPicture, read
from nearkin.data.sets.benchmarks import LISTS, missing_and_extra
from nearkin.data.sets.catalogue import load, named
from nearkin.data.sets.manifests import differences
from nearkin.data.splits import Splits, in_classes_of, places_in
from nearkin.data.twins import twins
from nearkin.names import visible

MARKS = {True: "ok ", False: "BAD", None: "SEE"}
"""Of what is right, of what makes a set unsound, and of what a person should look at."""

Fact = tuple[bool | None, str]


@dataclass(frozen=True)
class Verdict:
    """What a check found: whether the data set can be used as it is, and a text that says why."""

    sound: bool
    text: str

    def __str__(self) -> str:
        return self.text


def check(name: str, root: str | Path | None = None) -> Verdict:
    """The whole verdict on a data set; of the four benchmarks every picture is decoded; of the
    others, items that stand twice are named.

    A wrong name is a ValueError; everything else that is wrong is part of the verdict.
    """
    kind, place = named(name, root)
    try:
        facts = benchmark_facts(kind, place) if kind in LISTS else loaded_facts(name, root)
    except ValueError as error:
        facts = [(False, str(error).removeprefix(f"{name}: "))]
    sound = not any(right is False for right, _ in facts)
    lines = [f"  {MARKS[right]} {visible(text)}" for right, text in facts]
    head = f"{visible(name)}: {'sound' if sound else 'not sound'}"
    return Verdict(sound, "\n".join([head, *lines]))


WHOLE = {
    "omniglot": {"train": (19_280, 964), "query": (13_180, 659)},
    "mnist": {"train": (60_000, 10), "query": (10_000, 10)},
    "fashion-mnist": {"train": (60_000, 10), "query": (10_000, 10)},
}
"""Items and classes of small data sets, as published."""


def loaded_facts(name: str, root: str | Path | None) -> list[Fact]:
    """Of a small data set: that it loads, what is in it, and whether that is all."""
    splits = load(name, root)
    parts = {"train": splits.train, "query": splits.query, "gallery": splits.gallery}
    if splits.gallery is splits.query:
        del parts["gallery"]
    facts: list[Fact] = []
    for part, split in parts.items():
        there = len(split), len(split.classes)
        whole = WHOLE.get(name, {}).get(part, there)
        instead = "" if there == whole else f" instead of {whole[0]:,} of {whole[1]:,}"
        facts.append((not instead, f"{part}: {there[0]:,} items of {there[1]:,} classes{instead}"))
    facts.append((True, tested_on(splits)))
    facts += counts(splits)
    facts += [(True, f"not used: {line}") for line in splits.unused]
    return [*facts, (True, splits.variant), *twins(splits).facts()]


def counts(splits: Splits) -> Iterator[Fact]:
    """What is wrong with how many items and classes there are, and classes that may be one."""
    train, query, gallery = splits.train, splits.query, splits.gallery
    sizes = train.labels.bincount(minlength=len(train.classes))
    if len(train.classes) < 2:
        yield None, "training: one class, which nothing is told apart from"
    elif lone := (sizes == 1).nonzero()[:, 0].tolist():
        such = f"{len(lone):,} of {len(sizes):,} classes have one item, such as"
        advice = "batches of pairs want two"
        yield None, f"training: {such} {train.classes[lone[0]]!r}: {advice}"
    kinds, places = in_classes_of(query, gallery), places_in(query, gallery)
    kin = kinds.bincount(minlength=len(query.classes))[query.labels]
    kin = kin - ((places >= 0) & (kinds[places.clamp_min(0)] == query.labels)).long()
    alone = int((kin == 0).sum())
    known = splits.shared_classes or splits.mixed_classes
    if alone == len(query):
        yield None if known else False, "test: no item has another of its class in the gallery"
    elif alone:
        yield None, f"test: {alone:,} of {len(query):,} queries have no kin in the gallery"
    if len(kinds.unique()) == 1 and not known:
        yield None, "test: one class, so that whatever is nearest is kin, and R@k tells nothing"
    if pairs := look_alikes({*train.classes, *query.classes, *gallery.classes}):
        (a, b), count = pairs[0], f"{len(pairs):,} pair{'s' * (len(pairs) > 1)}"
        yield None, f"class names that look alike: {count}, such as {a!r} and {b!r}"


def look_alikes(names: set[str]) -> list[tuple[str, str]]:
    """Names that differ in case, blanks, zeros before a number or forms of a character alone.

    >>> look_alikes({"cat", "Cat ", "7", "007", "7.0", "dog"})
    [('007', '7'), ('007', '7.0'), ('Cat ', 'cat')]
    """
    first: dict[str, str] = {}
    found = []
    for name in sorted(names):
        plain = "".join(c for c in normalize("NFKC", name) if category(c) != "Cf")
        plain = " ".join(plain.casefold().split())
        plain = re.sub(r"\b0+(?=\d)|(?<=\d)\.0+$", "", plain)
        if first.setdefault(plain, name) != name:
            found.append((first[plain], name))
    return found


def tested_on(splits: Splits) -> str:
    """What the test part asks, in words."""
    if splits.mixed_classes:
        return "tested on known classes and on new ones, which are told apart"
    if splits.shared_classes:
        return "tested on new items of the classes that train"
    new = "tested on classes that do not train"
    if splits.halved:
        new += ": nothing says which part trains, so the first half of the class names does"
    return new


def benchmark_facts(name: str, root: Path) -> list[Fact]:
    """Of one of the four: its lists, its split, and each of its pictures."""
    lists = LISTS[name](root)
    facts: list[Fact] = [(True, f"{lists.layout} layout in {lists.root}")]
    for split, listing in lists.splits.items():
        classes = listing.classes
        facts.append(
            (
                True,
                f"{split}: {len(listing.files):,} images of {len(classes):,} classes, "
                f"{classes[0]} to {classes[-1]}",
            )
        )
    wrong = differences(name, lists.layout, lists.splits)
    facts.append((not wrong, wrong or "the lists are the official ones"))
    train, test = (set(lists.splits[split].classes) for split in ("train", "query"))
    facts.append((not train & test, f"{len(train & test)} classes both in training and in test"))

    missing, extra = missing_and_extra(lists)
    facts.append((not missing, counted("pictures missing", missing)))
    facts.append((not extra, counted("pictures that no list names", extra)))
    bad = unreadable(name, lists.root, sorted(lists.files - set(missing)))
    facts.append((not bad, counted("pictures that cannot be read", bad)))
    return facts


def counted(what: str, examples: Sequence[str]) -> str:
    """How many there are, with the first."""
    such_as = f", such as {examples[0]}" if examples else ""
    return f"{len(examples):,} {what}{such_as}"


def unreadable(name: str, root: Path, files: Sequence[str]) -> list[str]:
    """What is wrong with each file that does not decode."""

    def complaint(file: str) -> str:
        try:
            read(root / file)
        except BadPicture as error:
            return str(error)
        return ""

    console = Console(stderr=True)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        complaints = track(
            pool.map(complaint, files),
            f"reading {name}",
            total=len(files),
            console=console,
            disable=not console.is_terminal,
        )
        return [text for text in complaints if text]
