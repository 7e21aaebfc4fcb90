"""What a study answers: tables and figures as plain values, which a page then draws.

A row is the dictionary of one stored run (runs/store.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nearkin.measure.statistics import Estimate
from nearkin.runs.row import Row

Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Table:
    """Cells under column heads.

    percent, best and lowest name columns: those of shares in 0..1, printed in per cent; those
    whose highest value is set in bold; those whose lowest is.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    best: tuple[str, ...] = ()
    lowest: tuple[str, ...] = ()
    percent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        strange = set(self.best + self.lowest + self.percent) - set(self.columns)
        if strange:
            raise ValueError(f"{self.title}: no column {min(strange)!r}, only {self.columns}")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: {len(self.columns)} columns, but a row {row}")


@dataclass(frozen=True)
class Line:
    """One curve, with a band where low and high are given; a fit or a reference is dashed."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dashed: bool = False

    @classmethod
    def of(cls, name: str, x: Iterable[float], y: Sequence[Estimate], dashed: bool = False) -> Line:
        """The curve of some estimates, with their intervals as its band where seeds give one."""
        band = any(estimate.n > 1 for estimate in y)
        return cls(
            name,
            tuple(map(float, x)),
            tuple(estimate.mean for estimate in y),
            tuple(estimate.low for estimate in y) if band else (),
            tuple(estimate.high for estimate in y) if band else (),
            dashed,
        )


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


@dataclass(frozen=True)
class Bars:
    """Groups of bars with intervals: values[group][series]."""

    title: str
    y: str
    groups: tuple[str, ...]
    series: tuple[str, ...]
    values: tuple[tuple[Estimate | None, ...], ...]
    note: str = ""
    percent: bool = False


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


Figure = Lines | Bars | Matrix | Maps | Gallery | BatchGraphs


@dataclass(frozen=True)
class Answer:
    """A study's result: what was asked, what came of it in a few sentences, and the evidence."""

    title: str
    question: str
    findings: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()

    def __post_init__(self) -> None:
        for part in ("tables", "figures"):
            object.__setattr__(self, part, tuple(filter(says_something, getattr(self, part))))


def says_something(shown: Table | Figure) -> bool:
    """Whether a table or a figure has anything in it: of a study that is not finished, not all."""
    match shown:
        case Lines():
            return bool(shown.lines)
        case Bars():
            return bool(shown.groups)
        case Gallery():
            return bool(shown.row)
        case _:
            return bool(shown.rows)
