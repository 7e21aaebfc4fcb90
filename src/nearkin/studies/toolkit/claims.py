"""What the n-tuple report says of its pictures, held to numbers; and how our own losses compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nearkin.answers import Finding
from nearkin.measure.statistics import Difference, holm, paired
from nearkin.studies.shared.reading import against
from nearkin.studies.shared.words import SURE, listed, p_words, surely
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
        parts, those = [], []
        for dim, differ in tested.items():
            own = {head: d for (head, *pair), d in differ.items() if pair == [a, b]}
            parts += [f"{claim_words(d, head)} at {dim}-D" for head, d in own.items()]
            those += own.values()
        if parts:
            p = min(d.p for d in those)
            found.append(Finding(f"{a} against {b} is {'; '.join(parts)}.", p))
    for dim, rows in by_dim.items():
        for ours in OURS:
            parts = [words for head in SHAPES if (words := ours_words(rows, ours, head))]
            if parts:
                text = f"{dim}-D: {ours} is, {'; '.join(parts)} (at p = {SURE:g}, Holm-corrected)."
                found.append(Finding(text, SURE))
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
    words: dict[str, list[str]] = {}
    for dim, rows in by_dim.items():
        if difference := claims(rows).get(("separation", a, b)):
            word = f"{relation(difference, 'separation')} than"
            words.setdefault(word.replace("apart than", "from"), []).append(f"{dim}-D")
    if not words:
        return []
    parts = [f"at {listed(dims, len(dims))} {word} the {b}" for word, dims in words.items()]
    return [f"By the separation of classes the ratio over all of them (8) is {'; '.join(parts)}."]


def lower_is_better(head: str) -> bool:
    """Whether a column counts errors or unevenness."""
    return head == "anisotropy" or head in OVERLAPS


def relation(difference: Difference, head: str) -> str:
    """better, worse, or not to be told apart."""
    if difference.p >= SURE:
        return "not to be told apart"
    return "better" if (difference.estimate.mean < 0) == lower_is_better(head) else "worse"


def claim_words(difference: Difference, head: str) -> str:
    """Whether a method does better than another by one column, in a few words."""
    change = difference.estimate.mean
    share = head in SHARES or head in OVERLAPS
    size = f"{100 * change:+.2f} points" if share else f"{change:+.3g}"
    size = size.replace("-", "−")
    return f"{relation(difference, head)} by {head} ({size}, {p_words(difference)})"


def ours_words(rows: Rows, ours: str, head: str) -> str:
    """Which of the others' losses ours surely beats in one column, and which not."""
    values = tables.trained(tables.column(rows, head))
    own = values.get(ours, {})
    theirs = {n: s for n, s in values.items() if n not in OURS and len(s.keys() & own.keys()) > 1}
    if not theirs:
        return ""
    differ = against(ours, theirs | {ours: own})  # theirs less ours
    sign = 1 if lower_is_better(head) else -1
    behind, ahead = surely(differ, sign), surely(differ, -sign)
    level = [name for name in differ if name not in behind and name not in ahead]
    relations = {"better than": behind, "worse than": ahead, "not to be told from": level}
    parts = [f"{words} {listed(n, len(differ))}" for words, n in relations.items() if n]
    return f"by {head}, {', '.join(parts)}"
