"""From what was seen of a run, or of a set, to its illnesses.

A rule is a pure function of a `History` (rules_of_runs.py), of a `Shape` (rules_of_shapes.py) or
of a `Crowd` (rules_of_sets.py). Its limits stand in limits.py, and what cures in remedies.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nearkin.doctor.crowd import Crowd
from nearkin.doctor.history import History
from nearkin.doctor.illness import Diagnosis
from nearkin.doctor.rules_of_runs import RUNS, nan
from nearkin.doctor.rules_of_sets import KINDS
from nearkin.doctor.rules_of_shapes import SHAPES, wasted


def ail(history: History) -> list[Diagnosis]:
    """What ails a run, in the order of the rules."""
    found = (rule(history) for rule in RUNS if history.looks or rule is nan)
    return resolved([each for each in found if each])


def of_set(
    crowd: Crowd,
    known: Mapping[str, Any] | None = None,
    rules: tuple[Callable[[Crowd], Diagnosis | None], ...] = (),
) -> list[Diagnosis]:
    """What ails a set of vectors: by the rules of its kind, and by its shape, unless these are of
    inputs."""
    rules = rules or KINDS["vectors"]
    found = [rule(crowd) for rule in rules]
    if rules is not KINDS["inputs"]:
        told = crowd.whitened >= crowd.raw + 0.02  # small directions tell something
        found += [r(crowd.shape, known or {}) for r in SHAPES if not (told and r is wasted)]
    return resolved([each for each in found if each])


def resolved(found: list[Diagnosis]) -> list[Diagnosis]:
    """One of each name, without what another diagnosis explains."""
    by_name = {each.name: each for each in reversed(found)}
    explained = {each for name, those in EXPLAINS.items() if name in by_name for each in those}
    return [each for each in reversed(by_name.values()) if each.name not in explained]


EXPLAINS = {
    "collapse to a point": [
        "collapse to a line",
        "collapse to a few directions",
        "dimension wasted",
        "duplicates",
        "leak between splits",
        "labels that look wrong",
        "learning rate too low",
        "one class swallows others",
    ],
    "collapse to a line": [
        "collapse to a few directions",
        "dimension wasted",
        "one class swallows others",
    ],
    "learning rate too low": ["loss stuck at its margin", "no active pairs"],
    "learning rate too high": ["no active pairs"],
    "features badly scaled": [
        "collapse to a line",
        "collapse to a few directions",
        "dimension wasted",
    ],
}
"""Illness -> those that are nothing but it."""
