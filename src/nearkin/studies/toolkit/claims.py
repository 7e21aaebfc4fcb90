"""What the n-tuple report says of its pictures, held to numbers; and how our own losses compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nearkin.answers import Finding
from nearkin.measure.statistics import Difference, holm, paired
from nearkin.studies.shared.reading import against
from nearkin.studies.shared.sentences import begun
from nearkin.studies.shared.words import SURE, listed, p_said, signed, surely
from nearkin.studies.study import Rows
from nearkin.studies.toolkit import tables
from nearkin.studies.toolkit.methods import OURS
from nearkin.studies.toolkit.tables import OVERLAPS, SHAPES, SHARES

CLAIMS = {
    ("triplet (4-6)", "Siamese (1-3)"): ("overlap", "separation"),
    ("tuple ratio (8)", "tuple ratio (8) printed"): ("5-NN",),
    ("n-tuple (7) + L2", "n-tuple (7)"): ("separation",),
    ("tuple ratio (8)", "triplet on tuple"): ("separation", "anisotropy"),
    ("tuple ratio (8) printed", "triplet on tuple"): ("separation", "anisotropy"),
}
"""Of whom against whom -> by what."""


def findings(by_dim: Mapping[int, Rows]) -> list[Finding]:
    """The report's claims, pair by pair; and our losses against all others, in every dimension."""
    tested = {dim: claims(rows) for dim, rows in by_dim.items()}
    found = []
    for a, b in CLAIMS:
        by_head: dict[str, dict[int, Difference]] = {}
        for dim, differ in tested.items():
            for (head, *pair), d in differ.items():
                if pair == [a, b]:
                    by_head.setdefault(head, {})[dim] = d
        if by_head:
            said = [line for head, own in by_head.items() for line in claim_words(own, head, a, b)]
            surest = min(d.p for own in by_head.values() for d in own.values())
            found.append(Finding(" ".join(said), surest))
    for dim, rows in by_dim.items():
        for ours in OURS:
            said = [words for head in reversed(SHAPES) if (words := ours_words(rows, ours, head))]
            if said:
                text = f"At {dim}-D, {called(ours)} has {'; '.join(said)}. Above and below are "
                found.append(Finding(f"{text}sure at p < {SURE:g}, Holm-corrected.", SURE))
    return found


def claims(rows: Rows) -> dict[tuple[str, str, str], Difference]:
    """(head, a, b) -> a minus b of every claim that seeds can test; p Holm-corrected over all."""
    alike = next(iter(tables.look_alike(rows)))
    found = {}
    for (a, b), heads in CLAIMS.items():
        for head in (alike if by == "overlap" else by for by in heads):
            values = tables.column(rows, head)
            if a in values and b in values:
                found[head, a, b] = paired(values[a], values[b])
    found = {claim: d for claim, d in found.items() if d.estimate.n > 1}
    adjusted = holm([d.p for d in found.values()])
    return {claim: replace(d, p=p) for (claim, d), p in zip(found.items(), adjusted, strict=True)}


def of_the_ratio(by_dim: Mapping[int, Rows]) -> list[str]:
    """Whether the ratio over all classes separates better than the triplet on a tuple."""
    a, b = "tuple ratio (8)", "triplet on tuple"
    where: dict[str, list[str]] = {}
    for dim, rows in by_dim.items():
        if difference := claims(rows).get(("separation", a, b)):
            where.setdefault(relation(difference, "separation"), []).append(f"{dim}-D")
    first = "The ratio over all classes (8) separates classes"
    said = [
        f"{first} {word} than the {b} at {listed(dims, len(dims))}."
        for word, dims in where.items()
        if word
    ]
    if level := where.get(""):
        said.append(
            f"By separation it cannot be told from the {b} at {listed(level, len(level))}."
            if said
            else f"By the separation of classes the ratio over all of them (8) cannot be told from "
            f"the {b}."
        )
    return [" ".join(said)] if said else []


def lower_is_better(head: str) -> bool:
    """Whether a column counts errors or unevenness."""
    return head == "anisotropy" or head in OVERLAPS


def relation(difference: Difference, head: str) -> str:
    """better or worse; nothing where seeds cannot tell."""
    if difference.p >= SURE:
        return ""
    return "better" if (difference.estimate.mean < 0) == lower_is_better(head) else "worse"


WORDS = {
    "5-NN": ("classifies better", "classifies worse", "5-NN accuracy"),
    "anisotropy": ("makes classes rounder", "makes classes less round", "anisotropy"),
    "separation": ("separates classes better", "separates classes worse", "separation"),
}
"""Column -> what a method does that is better by it, what one that is worse, and its name."""


def words_of(head: str) -> tuple[str, str, str]:
    """The words of a column: of classes that look alike, how often they are mistaken.

    >>> words_of("4/7/9")[0]
    'mistakes 4/7/9 for one another less often'
    """
    mistaken = f"mistakes {head} for one another"
    return WORDS.get(head) or (
        f"{mistaken} less often",
        f"{mistaken} more often",
        f"share of {head} mistaken for one another",
    )


def claim_words(by_dim: Mapping[int, Difference], head: str, a: str, b: str) -> list[str]:
    """Whether a method does better than another by one column, a sentence for each outcome."""
    better, worse, name = words_of(head)
    parts: dict[str, list[str]] = {}
    for dim, difference in by_dim.items():
        change = amount(difference.estimate.mean, head)
        said = f"{change} at {dim}-D ({p_said(difference.p)})"
        parts.setdefault(relation(difference, head), []).append(said)
    verbs = {
        "better": f"{begun(a)} {better} than {b}: its {name} differs",
        "worse": f"{begun(a)} {worse} than {b}: its {name} differs",
        "": f"{begun(a)} cannot be told from {b} by its {name}, which differs",
    }
    return [f"{verbs[word]} by {' and by '.join(those)}." for word, those in parts.items()]


def amount(change: float, head: str) -> str:
    """A difference of shares in points, of other numbers as it is.

    >>> amount(0.05, "5-NN"), amount(-0.05, "anisotropy")
    ('+5.00 points', '−0.05')
    """
    share = head in SHARES or head in OVERLAPS
    return f"{signed(100 * change, '+.2f')} points" if share else signed(change, "+.3g")


def called(ours: str) -> str:
    """One of our losses within a sentence.

    >>> called("ours: Fisher NCA")
    'our Fisher NCA'
    """
    return ours.replace("ours: ", "our ")


def ours_words(rows: Rows, ours: str, head: str) -> str:
    """Ours by one column: above and below which of the others' losses it surely is."""
    values = tables.trained(tables.column(rows, head))
    own = values.get(ours, {})
    theirs = {n: s for n, s in values.items() if n not in OURS and len(s.keys() & own.keys()) > 1}
    if not theirs:
        return ""
    differ = against(ours, theirs | {ours: own})  # theirs less ours
    above, below = surely(differ, -1), surely(differ, 1)
    level = [name for name in differ if name not in above and name not in below]
    relations = {"above": above, "below": below, "not to be told from": level}
    parts = [f"{words} that of {listed(n, len(differ))}" for words, n in relations.items() if n]
    mean = tables.cell(head, own)
    article = "an" if head.startswith("a") else "a"
    return f"{article} {head} of {mean.mean:.3g}, {listed(parts)}" if mean else ""
