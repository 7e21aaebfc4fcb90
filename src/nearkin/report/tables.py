"""A Table in the terminal, in Markdown, in LaTeX and in HTML: one layout, four ways to write it.

Numbers of a column share their decimals, which its intervals decide: as many as show one digit
of the median half width, or two where it begins with 1 or 2. Without intervals: three significant
digits but no zeros that all share; in per cent one decimal, and two within 2 points of 0 or 100.
Where numbers with intervals differ a hundred thousand times, each has two significant digits; a
number that its interval drowns counts as its half width.
What comes from file and class names is escaped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isclose, isfinite, log10
from statistics import median
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from nearkin.answers import Cell, Table
from nearkin.measure.statistics import Estimate

if TYPE_CHECKING:
    import rich.table

MISSING = "–"
SPAN = 1e5  # largest over smallest of a column's numbers, beyond which they share no decimals


@dataclass(frozen=True)
class Shown:
    """A cell as it is printed: 57.3, or with its interval 57.3 ± 0.4."""

    text: str
    half: str = ""
    number: bool = False
    best: bool = False

    def __str__(self) -> str:
        return f"{self.text} ± {self.half}" if self.half else self.text


def heads(table: Table) -> list[str]:
    """Column heads, with the unit where it is per cent."""
    return [f"{name} %" if name in table.percent else name for name in table.columns]


def cells(table: Table) -> list[list[Shown]]:
    """The rows as they are printed."""
    columns = [
        column(
            [row[i] for row in table.rows],
            percent=name in table.percent,
            best=max if name in table.best else min if name in table.lowest else None,
        )
        for i, name in enumerate(table.columns)
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def kinds(table: Table) -> list[str]:
    """Whether a column holds numbers, which stand to the right, or text."""
    body, meant = cells(table), table.percent + table.best + table.lowest
    return [
        "number" if name in meant or any(row[i].number for row in body) else "text"
        for i, name in enumerate(table.columns)
    ]


def column(values: Sequence[Cell], percent: bool = False, best=None) -> list[Shown]:
    """One column; `best` (max or min) chooses what stands out, along with what prints the same.

    >>> [str(s) for s in column([Estimate(0.573, 0.569, 0.577, 5), 0.5, None], percent=True)]
    ['57.3 ± 0.4', '50.0', '–']
    """
    scale = 100 if percent else 1
    digits = decimals([v for v in values if not isinstance(v, str)], scale)
    shown = [show(v, scale, digits) for v in values]
    numbers = [(middle(v), s.text) for v, s in zip(values, shown, strict=True) if s.number]
    if best is None or len(numbers) < 2:
        return shown
    winner = best(numbers)[1]
    return [Shown(s.text, s.half, s.number, s.number and s.text == winner) for s in shown]


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
    numbers = [x for v in values if v is not None and isfinite(x := scale * middle(v))]
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
    x, half = scale * middle(value), scale * half_width(value)
    if not isfinite(x):
        return Shown(MISSING)
    if digits is None:
        return Shown(significant(x), significant(half) if half else "", number=True)
    text = f"{x:z,.{digits}f}"  # z: 0.0, not -0.0
    if x and not half and not float(text.replace(",", "")):
        text = f"{x:.2g}"  # too small for this column's decimals: not to be read as 0
    return Shown(text.replace("-", "−"), f"{half:,.{digits}f}" if half else "", number=True)


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
    for row in cells(table):
        drawn.add_row(*[Text(str(s), style="bold" if s.best else "") for s in row])
    return drawn


def markdown_text(text: str) -> str:
    r"""Text that Markdown prints as it is.

    >>> print(markdown_text("a|b *c* <script> keep_images"))
    a\|b \*c\* &lt;script&gt; keep_images
    """
    text = re.sub(r"[\\`*\[\]|~]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown(table: Table) -> str:
    """A GitHub table under its title in bold."""
    rules = ["---:" if kind == "number" else "---" for kind in kinds(table)]
    lines = [[markdown_text(head) for head in heads(table)], rules]
    for row in cells(table):
        lines.append(
            [f"**{markdown_text(str(s))}**" if s.best else markdown_text(str(s)) for s in row]
        )
    grid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    note = f"\n\n{markdown_text(table.note)}" if table.note else ""
    return f"**{markdown_text(table.title)}**\n\n{grid}{note}\n"


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "−": "$-$",
    "→": r"$\to$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "∞": r"$\infty$",
    "√": r"$\surd$",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}


def latex_text(text: str) -> str:
    r"""Text that LaTeX prints as it is, Greek letters included.

    >>> print(latex_text("50 % of a_b & λ ≤ 1"))
    50 \% of a\_b \& $\lambda$ $\leq$ 1
    """
    return "".join(LATEX.get(c) or greek(c) for c in " ".join(text.split()))


def greek(letter: str) -> str:
    """λ as $\\lambda$; any other character as it is."""
    size, _, name = unicodedata.name(letter, "").removeprefix("GREEK ").partition(" LETTER ")
    if not "Ͱ" <= letter <= "Ͽ" or " " in name:
        return letter
    name = name.replace("LAMDA", "LAMBDA").lower()
    return f"$\\{name.title() if size == 'CAPITAL' else name}$"


def latex(table: Table) -> str:
    """A booktabs table; the preamble needs `\\usepackage{booktabs}` and `[T1]{fontenc}`."""
    align = "".join("r" if kind == "number" else "l" for kind in kinds(table))
    lines = [" & ".join(map(latex_text, heads(table))) + r" \\", r"\midrule"]
    lines += [" & ".join(map(latex_cell, row)) + r" \\" for row in cells(table)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(table.title)}}}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            *([rf"\par\smallskip\footnotesize {latex_text(table.note)}"] if table.note else []),
            r"\end{table}",
            "",
        ]
    )


def latex_cell(cell: Shown) -> str:
    text = rf"\textbf{{{latex_text(cell.text)}}}" if cell.best else latex_text(cell.text)
    return rf"{text} $\pm$ {latex_text(cell.half)}" if cell.half else text


def html(table: Table) -> Markup:
    """For a page: numbers to the right, the best in bold, intervals smaller."""
    side = kinds(table)
    head = Markup().join(
        Markup('<th scope="col" class="{}">{}</th>').format(c, name)
        for c, name in zip(side, heads(table), strict=True)
    )
    rows = Markup("\n").join(
        Markup("<tr>{}</tr>").format(
            Markup().join(
                Markup('<td class="{}">{}</td>').format(c, html_cell(s))
                for c, s in zip(side, row, strict=True)
            )
        )
        for row in cells(table)
    )
    return Markup("<table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>").format(
        head, rows
    )


def html_cell(cell: Shown) -> Markup:
    text = Markup("<b>{}</b>").format(cell.text) if cell.best else escape(cell.text)
    return text + (Markup(' <span class="half">± {}</span>').format(cell.half) if cell.half else "")
