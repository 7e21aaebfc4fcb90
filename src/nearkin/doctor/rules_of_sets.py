"""The rules of sets: from vectors with labels to what ails them."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

from nearkin.doctor.crowd import Crowd
from nearkin.doctor.illness import Diagnosis, diagnosis
from nearkin.doctor.limits import LIMITS, percent


def leak(crowd: Crowd) -> Diagnosis | None:
    count = len(crowd.leaks)
    text = f"{count:,} training items stand in the test set of {crowd.tests:,}, whole or nearly"
    return of_share("leak between splits", text, crowd.leaks, max(crowd.tests, 1), LIMITS["leaks"])


def duplicates(crowd: Crowd) -> Diagnosis | None:
    text = f"{len(crowd.copies):,} of {crowd.items:,} items are nearly another"
    return of_share("duplicates", text, crowd.copies, crowd.items, LIMITS["copies"])


def of_share(
    name: str, text: str, items: tuple[int, ...], whole: int, limit: float
) -> Diagnosis | None:
    """A diagnosis of two items or more, where they are a larger share of the whole than that."""
    share = len(items) / whole
    if share < limit or len(items) < 2:
        return None
    evidence = f"{text}: {percent(share)}, above {percent(limit)}"
    return diagnosis(name, evidence, share, limit, items=items)


def labels(crowd: Crowd) -> Diagnosis | None:
    count = len(crowd.wrong)
    share = count / max(crowd.decided, 1)
    sure = count - 1.5 * sqrt(count) >= LIMITS["wrong"] * crowd.decided
    if not sure or crowd.decided < LIMITS["decided"] * crowd.items:
        return None
    return diagnosis(
        "labels that look wrong",
        f"of {crowd.decided:,} items deep inside a class {len(crowd.wrong):,} have the label of "
        f"another: {percent(share)}, above {percent(LIMITS['wrong'])}",
        share,
        LIMITS["wrong"],
        items=crowd.wrong,
    )


def scaled(crowd: Crowd) -> Diagnosis | None:
    limit, gain = LIMITS["whitened"], crowd.whitened - crowd.raw
    narrow = crowd.broad <= max(1, LIMITS["broad"] * crowd.shape.dim)
    if not narrow or gain < limit or crowd.sure < LIMITS["sure"]:
        return None
    return diagnosis(
        "features badly scaled",
        f"R@1 {percent(crowd.raw)} as they are, {percent(crowd.whitened)} once all directions have "
        f"one variance: {percent(limit)} or more above; 90 % of the variance lies in {crowd.broad} "
        f"of {crowd.shape.dim} directions",
        gain,
        limit,
        flags={"head_start": "whitened"},
    )


def swallowing_set(crowd: Crowd) -> Diagnosis | None:
    if crowd.shape.classes < 3 or crowd.others < LIMITS["others"]:
        return None
    return swallowed(crowd.swallower, crowd.swallowed)


def swallowed(kind: int, share: float) -> Diagnosis | None:
    if share < LIMITS["swallowed"]:
        return None
    return diagnosis(
        "one class swallows others",
        f"class {kind} is nearest to {percent(share)} of the items of all others, above "
        f"{percent(LIMITS['swallowed'])}",
        share,
        LIMITS["swallowed"],
        flags={"sampler": "classes"},
    )


KINDS: dict[str, tuple[Callable[[Crowd], Diagnosis | None], ...]] = {
    "vectors": (leak, duplicates, labels, scaled, swallowing_set),
    "inputs": (leak, duplicates, labels, scaled),
    "embeddings": (leak, duplicates, labels, swallowing_set),
}
"""Kind of a set -> its rules."""
