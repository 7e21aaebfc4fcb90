"""Trained heads against what they started as: how much of a method's lead is training?

Settings are searched, and starts among them: where one method was given the better closed form to
start as, this alone may explain that it leads. Tested as in over_forms.py.
"""

from __future__ import annotations

from collections.abc import Callable

from nearkin.answers import Finding, Table
from nearkin.measure.statistics import Sure, estimate
from nearkin.runs.recipe import Recipe
from nearkin.studies.shared import sentences
from nearkin.studies.shared.controls import FORMS, STARTED
from nearkin.studies.shared.over_classes import against_closed
from nearkin.studies.shared.over_forms import HEADS, Gains, corrected, some, trained
from nearkin.studies.shared.reading import method
from nearkin.studies.shared.words import p_cell, p_said, points
from nearkin.studies.study import Case, Rows


def head_of(recipe: Recipe) -> tuple:
    """What a head starts as: its form, and what it is a head of."""
    options = (tuple(sorted(one.items())) for one in (recipe.backbone_options, recipe.head_options))
    form = recipe.head_start, recipe.head_power, recipe.head_shrinkage
    return recipe.data, recipe.backbone, recipe.dim, *options, *form


def over_starts(rows: Rows, metric: str, by: Callable[[Case], str] = method) -> Gains | None:
    """The trained methods of these rows against their starts; None where no start is among them."""
    starts = {
        head_of(row.recipe): (case.method, row)
        for case, row in rows.items()
        if case.method in STARTED and row.metrics.last
    }
    start: dict[str, str] = {}
    gains: dict[str, Sure] = {}
    for name, runs in trained(rows, FORMS, by).items():
        of = starts.get(head_of(next(iter(runs.values())).recipe))
        sure = of and against_closed(runs, of[1], metric)
        if of and sure:
            start[name], gains[name] = of[0], sure
    level = {name: (row.metrics.last or {})[metric] for name, row in starts.values()}
    return Gains(start, level, gains, corrected(gains)) if gains else None


def tables(rows: Rows, place: str = "", by: Callable[[Case], str] = method) -> tuple[Table, ...]:
    """What training adds to the start of every method; none where no start is among the rows."""
    found = {head: one for head, m in HEADS.items() if (one := over_starts(rows, m, by))}
    if not found:
        return ()
    names = list(dict.fromkeys(name for one in found.values() for name in one.gains))

    def cells(one: Gains, name: str) -> tuple:
        if name not in one.gains:
            return None, None, ""
        level, gain = one.level[one.of[name]], estimate([one.size(name)])
        return estimate([level]), gain, p_cell(one.p[name]) if name in one.p else ""

    starts = {name: one.of[name] for one in found.values() for name in one.gains}
    data = next(iter(rows.values())).data.spoken
    return (
        Table(
            title=", ".join(filter(None, ("What training adds to its start", place, data))),
            columns=(
                "method",
                "start",
                *(c for h in HEADS if h in found for c in (f"{h} of the start", h, f"p, {h}")),
            ),
            rows=tuple(
                (name, starts[name], *(c for one in found.values() for c in cells(one, name)))
                for name in names
            ),
            percent=tuple(f"{head} of the start" for head in found),
            points=tuple(found),
            note=(
                "Start: the closed form that trials chose for this method to start as. In points "
                "what training adds to it. p: the larger of a t-test over seeds and of a bootstrap "
                "paired over test classes, Holm-corrected."
            ),
        ),
    )


def findings(rows: Rows, place: str = "", by: Callable[[Case], str] = method) -> list[Finding]:
    """Which methods training surely raised above their start, or lowered.

    place: where they are compared, within a sentence: "at 64-D".
    """
    found = []
    for head, metric in HEADS.items():
        one = over_starts(rows, metric, by)
        if one is None or not one.p:
            continue
        up, down = one.surely(1), one.surely(-1)
        many = len(one.gains)
        raised = some(up, many) if up else "no method"
        lowers = f", and lowers it for {some(down, many)}" if down else ""
        doubt = f" ({p_said(one.p[one.most])})" if one.most in one.p else ""
        text = (
            f"training surely raises {head} above that of its own start, untrained, for {raised}"
            f"{lowers}; it adds most to {one.most}: {points(one.size(one.most))} to {one.form}"
            f"{doubt}."
        )
        sure = [*up, *down]
        surest = min((one.p[name] for name in sure), default=1.0)
        size = max((abs(one.size(n)) for n in sure), default=0.0)
        found.append(Finding(sentences.at(place, text), surest, size))
    return found
