"""Trained heads against the closed forms: is any surely better than all of these?

A closed form has no seed. So a difference from it is sure only where it holds over seeds, by a
t-test, and over test classes, by a bootstrap; p is the larger of both, Holm-corrected.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from nearkin.answers import Finding, Table
from nearkin.measure.statistics import Sure, estimate, holm
from nearkin.runs.row import Row
from nearkin.studies.shared import sentences
from nearkin.studies.shared.controls import FORMS
from nearkin.studies.shared.methods import UNTRAINED
from nearkin.studies.shared.over_classes import against_closed
from nearkin.studies.shared.reading import method
from nearkin.studies.shared.words import SURE, listed, p_cell, p_said, percent, points
from nearkin.studies.study import Case, Rows

HEADS = {"R@1": "recall@1", "MAP@R": "map@r"}


@dataclass(frozen=True)
class Gains:
    """Every trained method minus a head that no gradient trains.

    of: method -> the name of that head. level: name of a head -> its share. gains: method ->
    difference. p: method -> Holm-corrected p, of those with several seeds.
    """

    of: dict[str, str]
    level: dict[str, float]
    gains: dict[str, Sure]
    p: dict[str, float]

    def size(self, name: str) -> float:
        """A method's difference, in the mean over seeds."""
        return self.gains[name].seeds.estimate.mean

    def surely(self, sign: int) -> list[str]:
        """The methods that are surely better (1) or worse (-1), the largest differences first."""
        names = sorted(self.gains, key=lambda name: -abs(self.size(name)))
        return [n for n in names if self.p.get(n, 1) < SURE and sign * self.size(n) > 0]

    @property
    def most(self) -> str:
        """The method with the largest gain."""
        return max(self.gains, key=self.size)

    @property
    def form(self) -> str:
        """What the method with the largest gain is compared to; of closed forms, all are."""
        return self.of[self.most]


def over_forms(
    rows: Rows,
    metric: str,
    forms: Collection[str] = FORMS,
    by: Callable[[Case], str] = method,
) -> Gains | None:
    """The trained methods of these rows against the closed form that is highest on test, since who
    improves on it improves on every one; None where one is missing.

    by: the name of a case's method.
    """
    level = {
        case.method: row.metrics.last[metric]
        for case, row in rows.items()
        if case.method in forms and row.metrics.last
    }
    runs = trained(rows, forms, by)
    if not level or not runs:
        return None
    form = max(level, key=level.__getitem__)
    reference = next(row for case, row in rows.items() if case.method == form)
    found = {name: against_closed(each, reference, metric) for name, each in runs.items()}
    gains = {name: sure for name, sure in found.items() if sure}
    of = dict.fromkeys(gains, form)
    return Gains(of, level, gains, corrected(gains)) if gains else None


def trained(
    rows: Rows, forms: Collection[str], by: Callable[[Case], str]
) -> dict[str, dict[int, Row]]:
    """Method -> seed -> row, of what was trained."""
    runs: dict[str, dict[int, Row]] = {}
    for case, row in rows.items():
        if case.method not in (*forms, UNTRAINED) and row.status == "done":
            runs.setdefault(by(case), {})[case.seed] = row
    return runs


def corrected(gains: Mapping[str, Sure]) -> dict[str, float]:
    """Name -> Holm-corrected p, of those with several seeds."""
    several = {name: sure.p for name, sure in gains.items() if sure.seeds.estimate.n > 1}
    return dict(zip(several, holm(list(several.values())), strict=True))


def tables(rows: Rows, place: str = "", by: Callable[[Case], str] = method) -> tuple[Table, ...]:
    """Every trained method's differences from the closed forms; none where there are no forms."""
    found = {head: one for head, m in HEADS.items() if (one := over_forms(rows, m, by=by))}
    if not found:
        return ()
    names = list(dict.fromkeys(name for one in found.values() for name in one.gains))

    def cells(one: Gains, name: str) -> tuple:
        if name not in one.gains:
            return None, ""
        return estimate([one.size(name)]), p_cell(one.p[name]) if name in one.p else ""

    heads = {head: f"{head} to {one.form}" for head, one in found.items()}
    data = next(iter(rows.values())).data.spoken
    return (
        Table(
            title=", ".join(filter(None, ("What training adds to the closed forms", place, data))),
            columns=("method", *(c for head in heads for c in (heads[head], f"p, {head}"))),
            rows=tuple(
                (name, *(c for one in found.values() for c in cells(one, name))) for name in names
            ),
            points=tuple(heads.values()),
            note=(
                "Points to that closed form of the table above which is highest on test. p: the "
                "larger of a t-test over seeds and of a bootstrap paired over test classes, "
                "Holm-corrected."
            ),
        ),
    )


def findings(
    rows: Rows,
    place: str = "",
    forms: Collection[str] = FORMS,
    by: Callable[[Case], str] = method,
) -> list[Finding]:
    """The best closed form, the best method, and which are surely better or worse.

    place: where they are compared, within a sentence: "at 64-D".
    """
    found = []
    for head, metric in HEADS.items():
        one = over_forms(rows, metric, forms, by)
        if one is None:
            continue
        better, worse = one.surely(1), one.surely(-1)
        lead = one.size(one.most)
        doubt = f", {p_said(one.p[one.most])}" if one.most in one.p else ""
        text = (
            f"the best closed form (a head that no gradient trains) is {one.form} with "
            f"{percent(one.level[one.form])} {head}; the best trained method is {one.most} with "
            f"{percent(one.level[one.form] + lead)} ({points(lead)}{doubt}). {verdict(one)}"
        )
        sure = [*better, *worse]
        surest = min((one.p[name] for name in sure), default=1.0)
        text = sentences.at(place, text)
        found.append(Finding(text, surest, max((abs(one.size(n)) for n in sure), default=0.0)))
    return found


def verdict(one: Gains) -> str:
    """Which trained methods are surely better than every closed form, and which surely worse than
    the best."""
    if not one.p:
        return "One seed cannot tell trained methods from closed forms."
    better, worse = one.surely(1), one.surely(-1)
    if not better and not worse:
        return "No trained method is surely better or worse than that closed form."
    up = "No trained method is surely better than every closed form"
    if better:
        verb = "is" if len(better) == 1 else "are"
        up = f"Surely better than every closed form {verb} {some(better, len(one.gains))}"
    down = "none is surely worse than the best of them"
    if worse:
        verb = "is" if len(worse) == 1 else "are"
        down = f"surely worse than the best of them {verb} {some(worse, len(one.gains))}"
    return f"{up}; {down}."


def sentence(
    rows: Rows,
    place: str = "",
    forms: Collection[str] = FORMS,
    by: Callable[[Case], str] = method,
) -> str:
    """Whether any method improves on the closed forms; "" where there are none."""
    one = over_forms(rows, "recall@1", forms, by)
    if one is None:
        return ""
    better, size = one.surely(1), points(one.size(one.most))
    text = (
        f"no trained method is surely better in R@1 than the best closed form, {one.form}, which "
        f"no gradient trains; the highest is {one.most}, {size} from it."
    )
    if better:
        text = (
            "these trained methods are surely better in R@1 than every closed form: "
            f"{some(better, len(one.gains))}; the highest is {one.most}, {size} from the best of "
            f"these, {one.form}."
        )
    return sentences.at(place, text)


def some(names: list[str], of: int) -> str:
    """The names, up to seven of them, or how many they are of so many.

    >>> some(["a", "b"], 9), some(list("abcdefgh"), 9), some(list("abcdefgh"), 8)
    ('a and b', '8 of the 9 methods', 'all 8 methods')
    >>> some(["r = 1, N = 2", "r = 1, N = 4"], 9)
    'r = 1, N = 2; r = 1, N = 4'
    """
    if len(names) > 7:
        return f"all {of} methods" if len(names) == of else f"{len(names)} of the {of} methods"
    return "; ".join(names) if any("," in name for name in names) else listed(names, most=7)
