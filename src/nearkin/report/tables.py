"""A Table in the terminal, in Markdown and in HTML: one layout, three ways to write it.

How many decimals a column's numbers have:

1. With intervals: as many as show one digit of the median half width, or two where it begins with
   1 or 2. A number that its interval drowns counts as its half width.
2. Without: three significant digits, but no zeros that all numbers share.
3. In per cent: one decimal or more, and two where numbers lie within 2 points of 0 or 100.
4. Where numbers with intervals differ by a factor above 100,000: two significant digits each.

An interval that is cut at 0 or 100 % is printed by its ends, since it is not as wide below as
above; two seeds are printed as two numbers. Text from file and class names is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor, isclose, isfinite, log10
from statistics import median
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from nearkin.answers import SENTENCES, Answer, Cell, Table
from nearkin.measure.statistics import Estimate

if TYPE_CHECKING:
    import rich.table

MISSING = "–"
SPAN = 1e5  # largest over smallest of a column's numbers, beyond which they share no decimals


@dataclass(frozen=True)
class Shown:
    """A cell as it is printed: 57.3, with its interval 57.3 ± 0.4 or 0.4 [0.0, 1.1], or 91.2 / 92.0
    of two seeds."""

    text: str
    interval: str = ""
    number: bool = False
    best: bool = False

    def __str__(self) -> str:
        return f"{self.text} {self.interval}" if self.interval else self.text


def heads(table: Table) -> list[str]:
    """Column heads, with the unit where it is per cent or points.

    >>> heads(Table("t", ("R@1", "to full", "p"), (), percent=("R@1",), points=("to full",)))
    ['R@1 %', 'to full, points', 'p']
    """
    units = dict.fromkeys(table.percent, " %") | dict.fromkeys(table.points, ", points")
    return [name + units.get(name, "") for name in table.columns]


def cells(table: Table) -> list[list[Shown]]:
    """The rows as they are printed."""
    columns = [
        column(
            [row[i] for row in table.rows],
            percent=name in table.percent + table.points,
            best=max if name in table.best else min if name in table.lowest else None,
            above=table.above,
        )
        for i, name in enumerate(table.columns)
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def kinds(table: Table) -> list[str]:
    """Whether a column holds numbers, which stand to the right, or text."""
    body = cells(table)
    meant = table.percent + table.points + table.best + table.lowest
    return [
        "number" if name in meant or any(row[i].number for row in body) else "text"
        for i, name in enumerate(table.columns)
    ]


def column(
    values: Sequence[Cell], percent: bool = False, best=None, above: int | None = None
) -> list[Shown]:
    """One column; `best` (max or min) chooses what stands out, along with what prints the same, of
    the rows above the line.

    >>> [str(s) for s in column([Estimate(0.573, 0.569, 0.577, 5), 0.5, None], percent=True)]
    ['57.3 ± 0.4', '50.0', '–']
    """
    scale = 100 if percent else 1
    digits = decimals([v for v in values if not isinstance(v, str)], scale)
    shown = [show(v, scale, digits) for v in values]
    ranked = list(zip(values, shown, strict=True))[:above]
    numbers = [(middle(v), s.text) for v, s in ranked if s.number]
    if best is None or len(numbers) < 2:
        return shown
    winner = best(numbers)[1]
    top = [replace(s, best=s.number and s.text == winner) for _, s in ranked]
    return [*top, *shown[len(top) :]]


def parts(table: Table) -> list[list[list[Shown]]]:
    """The rows as they are printed, those above the line and those below it."""
    rows, above = cells(table), len(table.rows) if table.above is None else table.above
    return [part for part in (rows[:above], rows[above:]) if part]


def middle(value: Cell) -> float:
    """The number in a cell."""
    assert isinstance(value, Estimate | int | float)
    return value.mean if isinstance(value, Estimate) else float(value)


def half_width(value: Cell) -> float:
    """Half of an interval; 0 for a number, and for points, which are no interval."""
    if not isinstance(value, Estimate) or value.points:
        return 0.0
    return (value.high - value.low) / 2 if value.n > 1 else 0.0


def decimals(values: Sequence[Cell], scale: float = 1) -> int | None:
    """How many decimals a column's numbers are printed with; None: two significant digits each.

    >>> decimals([Estimate(0.9954, 0.9951, 0.9957, 5)], scale=100)
    2
    >>> decimals([3.21, 13.5, 120.2]), decimals([0.1, 0.5, 1.1])
    (1, 1)
    """
    least = 1 if scale == 100 else 0
    halves = [h for v in values if 0 < (h := scale * half_width(v)) < float("inf")]
    if halves:
        sizes = [max(abs(middle(v)), half_width(v)) for v in values if v is not None]
        sizes = [x for x in sizes if 0 < x < float("inf")]
        if sizes and max(sizes) > SPAN * min(sizes):
            return None
        return min(6, max(least, -floor(log10(median(halves) / 2.95))))
    single = [x for v in values if v is not None for x in points_of(v)]
    numbers = [scale * x for x in single if isfinite(x)]
    sizes = [abs(x) for x in numbers if x]
    if scale == 100:
        sizes = [rest for x in numbers if (rest := min(abs(x), abs(100 - x)))]
        return 2 if sizes and median(sizes) < 2 else 1
    enough = min(6, max(0, 2 - floor(log10(median(sizes))))) if sizes else 0
    exact = (d for d in range(enough) if all(isclose(round(x, d), x) for x in numbers))
    return next(exact, enough)


def show(value: Cell, scale: float = 1, digits: int | None = 1) -> Shown:
    """One cell, printed with so many decimals; None: with two significant digits."""
    if value is None:
        return Shown(MISSING)
    if isinstance(value, str):
        return Shown(value)
    if isinstance(value, int) and scale == 1:
        return Shown(f"{value:,}", number=True)
    if not isfinite(middle(value)):
        return Shown(MISSING)
    half = half_width(value)
    lone = not half and scale == 1  # a difference of less than 0.005 points is one of 0.00
    text = " / ".join(written(scale * x, digits, lone) for x in points_of(value))
    if not isinstance(value, Estimate) or not half:
        return Shown(text, number=True)
    if isclose(value.high - value.mean, value.mean - value.low, rel_tol=1e-6):
        return Shown(text, f"± {written(scale * half, digits)}", number=True)
    low, high = (written(scale * end, digits) for end in (value.low, value.high))
    return Shown(text, f"[{low}, {high}]", number=True)


def points_of(value: Cell) -> tuple[float, ...]:
    """The numbers in a cell: those of two seeds, else one."""
    points = value.points if isinstance(value, Estimate) else ()
    return points if len(points) > 1 else (middle(value),)


def written(x: float, digits: int | None, whole: bool = False) -> str:
    """A number with so many decimals; None: with two significant digits.

    whole: not to be written as 0 where it is not 0.
    """
    if digits is None:
        return significant(x)
    text = f"{x:z,.{digits}f}"  # z: 0.0, not -0.0
    if whole and x and not float(text.replace(",", "")):
        text = f"{x:.2g}"
    return text.replace("-", "−")


def significant(x: float) -> str:
    """With two significant digits.

    >>> significant(0.0198), significant(46212673), significant(-257.0)
    ('0.02', '4.6e7', '−260')
    """
    size = f"{x:.2g}"
    if "e" in size and -4 <= log10(abs(x)) < 5:
        size = f"{float(size):g}"
    return size.replace("e+0", "e").replace("e-0", "e-").replace("-", "−")


def terminal(table: Table) -> rich.table.Table:
    """For the terminal, by rich."""
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=Text(table.title), caption=Text(table.note) if table.note else None)
    for head, kind in zip(heads(table), kinds(table), strict=True):
        side = "right" if kind == "number" else "left"
        drawn.add_column(Text(head), justify=side, overflow="fold")
    for part in parts(table):
        for row in part:
            drawn.add_row(*[Text(str(s), style="bold" if s.best else "") for s in row])
        drawn.add_section()
    return drawn


def markdown_text(text: str) -> str:
    r"""Text that Markdown prints as it is.

    >>> print(markdown_text("a|b *c* <script> keep_images"))
    a\|b \*c\* &lt;script&gt; keep_images
    """
    text = re.sub(r"[\\`*\[\]|~]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown(table: Table, titled: bool = True) -> str:
    """A GitHub table, under its title in bold, with an empty row in place of its line."""
    rules = ["---:" if kind == "number" else "---" for kind in kinds(table)]
    lines = [[markdown_text(head) for head in heads(table)], rules]
    for place, part in enumerate(parts(table)):
        lines += [[""] * len(rules)] if place else []
        for row in part:
            lines.append(
                [f"**{markdown_text(str(s))}**" if s.best else markdown_text(str(s)) for s in row]
            )
    grid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    note = f"\n\n{markdown_text(table.note)}" if table.note else ""
    title = f"**{markdown_text(table.title)}**\n\n" if titled else ""
    return f"{title}{grid}{note}\n"


def html(table: Table) -> Markup:
    """For a page: numbers to the right, the best in bold, intervals smaller."""
    side = kinds(table)
    head = Markup().join(
        Markup('<th scope="col" class="{}">{}</th>').format(c, name)
        for c, name in zip(side, heads(table), strict=True)
    )
    bodies = [
        Markup("\n").join(
            Markup("<tr>{}</tr>").format(
                Markup().join(
                    Markup('<td class="{}">{}</td>').format(c, html_cell(s))
                    for c, s in zip(side, row, strict=True)
                )
            )
            for row in part
        )
        for part in parts(table)
    ]
    rows = Markup("\n</tbody>\n<tbody>\n").join(bodies)
    return Markup("<table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>").format(
        head, rows
    )


def of_answer(answer: Answer) -> str:
    """An answer as a notebook shows it: its summary over its first table."""
    lines = answer.summary or tuple(str(finding) for finding in answer.findings[:SENTENCES])
    text = Markup().join(Markup("<p>{}</p>").format(line) for line in lines)
    first = html(answer.tables[0]) if answer.tables else Markup()
    return Markup("<h3>{}</h3>{}{}").format(answer.title, text, first)


def html_cell(cell: Shown) -> Markup:
    """The text of a cell, the best in bold, its interval smaller."""
    whole = cell.text.replace("< ", "<\u00a0")  # a p is not broken
    text = Markup("<b>{}</b>").format(whole) if cell.best else escape(whole)
    interval = Markup(' <span class="half">{}</span>').format(cell.interval)
    return text + interval if cell.interval else text
