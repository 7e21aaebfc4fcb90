"""What the n-tuple report says of its pictures, held to numbers; and how our own losses compare."""

from __future__ import annotations

from dataclasses import replace

from nearkin.measure.statistics import Difference, holm, paired
from nearkin.studies.shared.reading import against
from nearkin.studies.shared.words import SURE, leader_words, listed, p_words, surely
from nearkin.studies.study import Rows
from nearkin.studies.toolkit import tables
from nearkin.studies.toolkit.methods import OURS
from nearkin.studies.toolkit.tables import OVERLAPS, SHAPES, SHARES

CLAIMS = {
    "overlap": (("triplet (4-6)", "Siamese (1-3)"),),
    "5-NN": (("tuple ratio (8)", "tuple ratio (8) printed"),),
    "separation": (
        ("triplet (4-6)", "Siamese (1-3)"),
        ("n-tuple (7) + L2", "n-tuple (7)"),
        ("tuple ratio (8)", "triplet on tuple"),
        ("tuple ratio (8) printed", "triplet on tuple"),
    ),
    "anisotropy": (
        ("tuple ratio (8)", "triplet on tuple"),
        ("tuple ratio (8) printed", "triplet on tuple"),
    ),
}
"""By what -> of whom against whom."""


def findings(rows: Rows, dim: int) -> list[str]:
    """Who leads in one dimension; the report's claims; our losses against all others."""
    metric, learned = tables.ranking(rows)
    if not learned:
        return []
    found = [f"{dim}-D: {leader_words(learned, metric, 2)}"]
    alike = next(iter(tables.look_alike(rows)))
    tested = claims(rows, alike)
    for by in CLAIMS:
        head = alike if by == "overlap" else by
        parts = [claim_words(a, b, d, head) for (h, a, b), d in tested.items() if h == head]
        if head in SHAPES:
            parts += [words for ours in OURS if (words := ours_words(rows, ours, head))]
        if parts:
            found.append(f"{dim}-D, by {head}: {'; '.join(parts)}.")
    return found


def claims(rows: Rows, alike: str) -> dict[tuple[str, str, str], Difference]:
    """(head, a, b) -> a minus b of every claim that seeds can test; p Holm-corrected over all."""
    found = {}
    for by, pairs in CLAIMS.items():
        head = alike if by == "overlap" else by
        values = tables.column(rows, head)
        for a, b in pairs:
            if a in values and b in values:
                found[head, a, b] = paired(values[a], values[b])
    found = {claim: d for claim, d in found.items() if d.estimate.n > 1}
    adjusted = holm([d.p for d in found.values()])
    return {claim: replace(d, p=p) for (claim, d), p in zip(found.items(), adjusted, strict=True)}


def lower_is_better(head: str) -> bool:
    """Whether a column counts errors or unevenness."""
    return head == "anisotropy" or head in OVERLAPS


def claim_words(a: str, b: str, difference: Difference, head: str) -> str:
    """Whether method a does better than b in one column, in a few words."""
    change, relation = difference.estimate.mean, "cannot be told from"
    if difference.p < SURE:
        better = (change < 0) == lower_is_better(head)
        relation = "is better than" if better else "is worse than"
    share = head in SHARES or head in OVERLAPS
    size = f"{100 * change:+.2f} points" if share else f"{change:+.3g}"
    return f"{a} {relation} {b} ({size}, {p_words(difference)})".replace("(-", "(−")


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
    return f"{ours} is {', '.join(parts)}"
