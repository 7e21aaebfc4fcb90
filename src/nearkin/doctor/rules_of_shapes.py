"""The rules of shapes: how many directions a batch or a set fills, and what that tells of kin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nearkin.doctor.illness import Diagnosis, diagnosis
from nearkin.doctor.limits import LIMITS, percent
from nearkin.doctor.remedies import of_collapse
from nearkin.doctor.shape import Shape


def point(shape: Shape, known: Mapping[str, Any]) -> Diagnosis | None:
    limit, by_angle = LIMITS["spread of nothing"], shape.metric == "cosine"
    if shape.lift < (0.7 if by_angle else 0.5):
        limit = LIMITS["spread by angle" if by_angle else "spread"]
    if shape.lift < 0.3:
        limit = LIMITS["spread by chance"]
    if shape.spread >= limit:
        return None
    return diagnosis(
        "collapse to a point",
        f"variance of the embeddings {shape.spread:.1e} of their squared length, below {limit:g}; "
        f"R@1 {percent(shape.recall)}, by chance {percent(shape.chance)}",
        shape.spread,
        limit,
        flags=of_collapse(known),
    )


def line(shape: Shape, known: Mapping[str, Any]) -> Diagnosis | None:
    many = shape.classes >= 4 and shape.dim >= 3 and shape.items >= 8
    useless = not shape.rest >= max(LIMITS["useless lift"], LIMITS["useless"] * shape.lift)
    if not many or shape.first <= LIMITS["line"] or not useless:
        return None
    return diagnosis(
        "collapse to a line",
        f"{percent(shape.first)} of the variance in one direction, above {percent(LIMITS['line'])}"
        f"; without it R@1 is that of chance",
        shape.first,
        LIMITS["line"],
        flags=of_collapse(known),
    )


def few(shape: Shape, known: Mapping[str, Any]) -> Diagnosis | None:
    possible = min(shape.dim, shape.classes - 1, shape.items - 1)
    limit = int(2 + LIMITS["few"] * possible)
    useless = not shape.remainder >= max(LIMITS["useless lift"], LIMITS["useless"] * shape.lift)
    if possible < 8 or shape.directions > limit or not useless or shape.lift >= LIMITS["good"]:
        return None
    return diagnosis(
        "collapse to a few directions",
        f"95 % of the variance in {shape.directions} directions of {possible} that {shape.classes} "
        f"classes could fill, {limit} or fewer; R@1 {percent(shape.recall)}",
        shape.directions,
        limit,
        flags=of_collapse(known),
    )


def wasted(shape: Shape, known: Mapping[str, Any]) -> Diagnosis | None:
    by_classes = shape.needed < 0.5 * (shape.classes - 1)  # which need so many to lie apart
    large = by_classes or shape.dim >= LIMITS["large"]
    limit = LIMITS["wasted" if by_classes else "wasted whatever"] * shape.dim * large
    seen = shape.needed <= (shape.items - 1) / 3  # more could be more in a larger batch
    as_good = shape.enough >= shape.lift - 0.05
    if shape.dim < 16 or shape.needed > limit or not seen or not as_good:
        return None
    dim = max(4, 2 ** (2 * shape.needed - 1).bit_length())
    return diagnosis(
        "dimension wasted",
        f"99 % of the variance in {shape.needed} of {shape.dim} dimensions, {limit:.0f} or fewer, "
        f"which find kin as well as all",
        shape.needed,
        limit,
        flags={"dim": min(dim, shape.dim // 2)},
    )


SHAPES: tuple[Callable[[Shape, Mapping[str, Any]], Diagnosis | None], ...] = (
    point,
    line,
    few,
    wasted,
)
