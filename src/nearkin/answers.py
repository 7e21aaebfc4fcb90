"""What a study answers: tables and figures as plain values, which a page then draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nearkin.extras import MissingExtra
from nearkin.measure.statistics import Estimate
from nearkin.names import resolve
from nearkin.runs.row import Row

Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Table:
    """Cells under column heads.

    percent, points, best and lowest name columns: those of shares in 0..1, printed in per cent;
    those of differences of shares, printed in points; those whose highest value is set in bold;
    those whose lowest is. above: so many rows stand above a
    line; those below it cannot be compared with them on equal terms, and are never the best.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    best: tuple[str, ...] = ()
    lowest: tuple[str, ...] = ()
    percent: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    above: int | None = None

    def __post_init__(self) -> None:
        named = self.best + self.lowest + self.percent + self.points
        if strange := set(named) - set(self.columns):
            raise ValueError(f"{self.title}: no column {min(strange)!r}, only {self.columns}")
        if both := set(self.percent) & set(self.points):
            raise ValueError(
                f"{self.title}: {min(both)!r} is in per cent or in points, not in both"
            )
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: {len(self.columns)} columns, but a row {row}")
        object.__setattr__(self, "note", self.note[:1].upper() + self.note[1:])  # sentences


@dataclass(frozen=True)
class Line:
    """One curve, with a band where low and high are given; a fit or a reference is dashed.

    points: at each x the values of two seeds, which make no band.
    listed: in the key of its figure.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dashed: bool = False
    points: tuple[tuple[float, ...], ...] = ()
    listed: bool = True

    @classmethod
    def of(cls, name: str, x: Iterable[float], y: Sequence[Estimate], dashed: bool = False) -> Line:
        """The curve of some estimates, with their intervals as its band where seeds give one."""
        band, two = (any(len(e.points) == n for e in y) for n in (0, 2))
        return cls(
            name,
            tuple(map(float, x)),
            tuple(e.mean for e in y),
            tuple(e.mean if e.points else e.low for e in y) if band else (),
            tuple(e.mean if e.points else e.high for e in y) if band else (),
            dashed,
            tuple(e.points if len(e.points) == 2 else () for e in y) if two else (),
        )

    def estimates(self) -> list[Estimate]:
        """The values at each x, as far as they are here."""
        found = []
        for i, y in enumerate(self.y):
            points = self.points[i] if self.points else ()
            low, high = (end[i] if end else y for end in (self.low, self.high))
            if points:
                found.append(Estimate(y, min(points), max(points), 2, points))
            else:
                found.append(
                    Estimate(y, low, high, 3) if high > low else Estimate(y, y, y, 1, (y,))
                )
        return found


@dataclass(frozen=True)
class Lines:
    """Curves in one frame. percent (here and below): values are shares, drawn in per cent."""

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    log_x: bool = False
    log_y: bool = False
    note: str = ""
    percent: bool = False

    def as_curves(self) -> Lines | Dots:
        """These lines; dots where no line has three points, which are no curve."""
        solid = [line for line in self.lines if not line.dashed]
        if not solid or any(len(line.x) >= 3 for line in solid):
            return self
        steps = sorted({x for line in solid for x in line.x})
        found = [dict(zip(line.x, line.estimates(), strict=True)) for line in solid]
        return Dots(
            self.title,
            self.y,
            groups=tuple(line.name for line in solid),
            series=tuple(f"{self.x} {x:g}" for x in steps),
            values=tuple(tuple(values.get(x) for x in steps) for values in found),
            note=self.note,
            percent=self.percent,
        )


@dataclass(frozen=True)
class Dots:
    """A dot with its interval, and one for each seed, for every group and series:
    values[group][series].

    marks: levels that are drawn as lines across all groups, such as that of no training.
    open: (group, series) of the dots that are drawn hollow.
    """

    title: str
    y: str
    groups: tuple[str, ...]
    series: tuple[str, ...]
    values: tuple[tuple[Estimate | None, ...], ...]
    note: str = ""
    percent: bool = False
    marks: tuple[tuple[str, float], ...] = ()
    open: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class Matrix:
    """A heat map whose cells show a mean and its interval: values[row][column]."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[Estimate | None, ...], ...]
    x: str = ""
    y: str = ""
    note: str = ""
    percent: bool = False


@dataclass(frozen=True)
class Maps:
    """Embeddings of several runs side by side: (name, the row that stored them).

    2-D ones as they are, others by their first two principal components.
    """

    title: str
    rows: tuple[tuple[str, Row], ...]
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """Right and wrong nearest neighbours of one run: the row that stored its embeddings.

    Pictures are shown only where the data set's terms allow it (data/sources.py), else names.
    """

    title: str
    row: Row
    note: str = ""


@dataclass(frozen=True)
class BatchGraphs:
    """Who listens to whom in a batch, for several runs side by side: (name, the row that kept it).

    The images are the nodes, attention is the width of the edges; drawn only where the data set's
    terms allow its pictures to be shown (data/sources.py).
    """

    title: str
    rows: tuple[tuple[str, Row], ...]
    note: str = ""


Figure = Lines | Dots | Matrix | Maps | Gallery | BatchGraphs


@dataclass(frozen=True)
class Finding:
    """A sentence of an answer, with its numbers and its doubt.

    p: of the surest difference that it names; 1 where it says that none can be told.
    size: of that difference, which orders those of one p.
    group: what it is about; findings of one group stand together.
    """

    text: str
    p: float = 1.0
    size: float = 0.0
    group: str = ""

    @property
    def strength(self) -> tuple[float, float]:
        """The surer, the less: its p as one prints it, and less its size."""
        return round(self.p, 3), -self.size

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Answer:
    """A study's result: what was asked, what came of it in a few sentences, and the evidence.

    summary: three sentences at most, as one would say them aloud.
    findings: the numbers behind them, the surest first; a page shows FINDINGS of them.
    tables, figures: the first of each is shown at once, the others when asked for.
    remarks: what limits the whole, such as rows left out.
    """

    title: str
    question: str
    findings: tuple[Finding, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    summary: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.summary) > SENTENCES:
            raise ValueError(
                f"{self.title}: {SENTENCES} sentences at most, got {len(self.summary)}"
            )
        drawn = (f.as_curves() if isinstance(f, Lines) else f for f in self.figures)
        object.__setattr__(self, "figures", tuple(filter(says_something, drawn)))
        object.__setattr__(self, "tables", tuple(filter(says_something, self.tables)))
        object.__setattr__(self, "findings", surest_first(self.findings))

    def _repr_html_(self) -> str | None:
        """The summary and the first table; None without the extra `report`, which draws it."""
        try:
            return resolve(DRAWN_BY)(self)
        except MissingExtra:
            return None


DRAWN_BY = "nearkin.report.tables:of_answer"
"""What draws an answer in a notebook: of a floor above, so it is looked up when it is wanted."""

SENTENCES = 3
FINDINGS = 7
"""The most that the summary of an answer has, and that a page shows at once."""


def surest_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The groups by their surest finding, and so the findings of each; one without a group is one
    by itself."""
    groups: dict[str | int, list[Finding]] = {}
    for i, finding in enumerate(findings):
        groups.setdefault(finding.group or i, []).append(finding)
    by_strength = [sorted(group, key=lambda f: f.strength) for group in groups.values()]
    return tuple(f for group in sorted(by_strength, key=lambda g: g[0].strength) for f in group)


def says_something(shown: Table | Figure) -> bool:
    """Whether a table or a figure has anything in it: of a study that is not finished, not all."""
    match shown:
        case Lines():
            return bool(shown.lines)
        case Dots():
            return bool(shown.groups)
        case Gallery():
            return bool(shown.row)
        case _:
            return bool(shown.rows)
