"""Curves, dots and matrices as SVG, by matplotlib.

Colours never stand alone: curves differ in marker or dash too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, product
from math import isfinite, log10
from typing import Any

import numpy as np

from nearkin.answers import Cell, Dots, Line, Lines, Matrix
from nearkin.report import tables
from nearkin.report.canvas import COLOURS, INK, ON_LIGHT, PAPER, STRIPE, WIDE, Tips, as_svg, new

MARKERS = "osD^vPXh"
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))
MARKS = ((0, (4, 2)), (0, (1, 1.5)), (0, (7, 1.5, 1, 1.5)), "solid")
"""Strokes of the lines of levels, such as that of no training."""
LEVEL = "#777777"
"""The colour of levels among curves."""


def svg(figure: Lines | Dots | Matrix) -> str:
    """The figure as SVG that scales to whatever holds it."""
    return as_svg(partial(VECTOR[type(figure)], figure))


def shown(value: Cell, percent: bool) -> str:
    """A number with its interval, as a table shows it."""
    return str(tables.column([value], percent)[0]) + (" %" if percent else "")


def draw_lines(figure: Lines, tips: Tips):
    """Curves with bands; a key below. Dashed is what goes with the solid one of its colour; levels
    are grey."""
    scale = 100 if figure.percent else 1
    drawn = new(WIDE, 3.1 + 0.17 * -(-sum(line.listed for line in figure.lines) // 2))
    axes = drawn.add_subplot()
    solid, strokes = 0, cycle(MARKS)
    colours = colours_of(figure.lines)
    lowest = min((y for line in figure.lines for y in line.y if y > 0), default=0.0)
    for line, colour in zip(figure.lines, colours, strict=True):
        x, y = np.array(line.x, float), scale * np.array(line.y, float)
        look: dict = {"color": colour, "label": short(line.name, 34) if line.listed else None}
        if line.dashed:
            stroke = next(strokes) if colour == LEVEL else (0, (5, 2))
            axes.plot(x, y, linestyle=stroke, linewidth=1.2, **look)
        else:
            every = max(1, len(x) // 12)
            look |= {"marker": MARKERS[solid % len(MARKERS)], "markevery": every}
            axes.plot(x, y, linestyle=DASHES[solid // len(COLOURS) % len(DASHES)], **look)
            solid += 1
        if line.low and line.high:
            low, high = scale * np.array(line.low, float), scale * np.array(line.high, float)
            if figure.log_y:  # which has no 0, nor what is below
                low = np.maximum(low, scale * lowest / 2)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        for a, values in zip(x, line.points, strict=False):
            seeds = scale * np.array(values)
            axes.plot([a] * len(seeds), seeds, ".", color=colour, markersize=3.5, alpha=0.7)
        for a, b, text in zip(x, y, line_tips(figure, line), strict=True):
            (point,) = axes.plot([a], [b], marker="o", markersize=7, alpha=0, color=colour)
            tips.add(point, text)
    axes.set_xlabel(figure.x)
    axes.set_ylabel(with_unit(figure.y, figure.percent))
    axes.margins(x=0.02)
    if figure.log_y:
        axes.set_yscale("log")
        write_out(axes.yaxis)
    set_x_ticks(axes, figure)
    if len(figure.lines) > 1:
        drawn.legend(loc="outside lower center", ncols=2, handlelength=2.6, columnspacing=1.5)
    return drawn


def colours_of(lines: Sequence[Line]) -> list[str]:
    """A colour for each line; a dashed one has that of the solid one whose name begins as its own,
    or is a level.

    >>> solid, law = Line("n-pair", (1,), (1,)), Line("n-pair, law", (1,), (1,), dashed=True)
    >>> len(set(colours_of([solid, law])))
    1
    >>> colours_of([solid, Line("no training", (1,), (1,), dashed=True)])[1] == LEVEL
    True
    >>> many = [Line(str(i), (1,), (1,)) for i in range(10)]
    >>> colours_of(many)[8:] == colours_of(many)[:2]
    True
    """
    solid = [line.name for line in lines if not line.dashed]
    own = dict(zip(solid, cycle(COLOURS), strict=False))
    kin = {name.split(",")[0]: colour for name, colour in reversed(own.items())}
    return [
        kin.get(line.name.split(",")[0], LEVEL) if line.dashed else own[line.name] for line in lines
    ]


def line_tips(figure: Lines, line: Line) -> Iterator[str]:
    """name, x: y [low, high] of every point."""
    for i, (x, y) in enumerate(zip(line.x, line.estimates(), strict=True)):
        text = f"{line.name}\n{figure.x} {x:g}: "
        text += shown(y if y.points else y.mean, figure.percent)
        if line.low and line.high and not y.points:
            low, high = shown(line.low[i], figure.percent), shown(line.high[i], figure.percent)
            text += f" [{low}, {high}]"
        yield text


def set_x_ticks(axes, figure: Lines) -> None:
    """Ticks at the points themselves where they are few and far apart; whole numbers stay whole."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    values = sorted({x for line in figure.lines for x in line.x if isfinite(x)})
    whole = all(float(x).is_integer() for x in values)
    if figure.log_x:
        axes.set_xscale("log")
        write_out(axes.xaxis)
    if figure.log_x and 1 < len(values) <= 9 and values[0] > 0:
        values = far_apart(values)
        axes.set_xticks(values, [f"{x:g}" for x in values])
        axes.xaxis.set_minor_locator(NullLocator())
    elif not figure.log_x and whole:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def far_apart(values: Sequence[float]) -> list[float]:
    """Of ascending positive values those that have room for their numbers on a logarithmic axis.

    >>> far_apart([2, 16, 58, 59])
    [2, 16, 58]
    """
    room = log10(values[-1] / values[0]) / 20
    found = [values[0]]
    for value in values[1:]:
        if log10(value / found[-1]) > room:
            found.append(value)
    return found


def write_out(axis) -> None:
    """Plain numbers on a logarithmic axis: 1, 10, 100, or 1, 2, 5, 10 where it is short; powers of
    ten where it is long."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axis.set_major_formatter(lambda x, _: power(x) if low < 1e-4 else f"{x:g}")
    axis.set_minor_formatter(NullFormatter())


def power(x: float) -> str:
    """A power of ten, as such: our text is never read as mathematics.

    >>> power(0.01), power(1.0)
    ('10⁻²', '1')
    """
    digits = str(round(log10(x))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return "1" if digits == "⁰" else f"10{digits}"


def with_unit(text: str, percent: bool) -> str:
    return f"{text} (%)" if percent and "%" not in text else text


def draw_dots(figure: Dots, tips: Tips):
    """A row for each group: the mean of each series as a dot on its interval, every seed as a small
    one, and the number at the right."""
    scale = 100 if figure.percent else 1
    count = len(figure.series)
    names = [*figure.series, *(name for name, _ in figure.marks)]
    across = key_columns(names)
    height = 0.95 + len(figure.groups) * (0.17 * count + 0.13)
    height += bool(figure.marks) * (0.03 + 0.17 * -(-len(names) // across))
    drawn = new(WIDE, height)
    axes = drawn.add_subplot()
    step = 0.78 / count
    digits = tables.decimals([v for group in figure.values for v in group], scale)
    floor = left_edge(figure)
    for g in range(1, len(figure.groups), 2):  # stripes lead the eye to the numbers
        axes.axhspan(g - 0.5, g + 0.5, color=STRIPE, linewidth=0, zorder=0)
    for g, s in product(range(len(figure.groups)), range(count)):
        value, y = figure.values[g][s], g + (s + 0.5) * step - 0.39
        if value is None or not isfinite(value.mean):
            continue
        group, name, colour = figure.groups[g], figure.series[s], COLOURS[s % len(COLOURS)]
        if len(value.seeds) > 1:  # below the interval, which would hide them
            seeds, below = scale * np.array(value.seeds), y + 0.3 * step
            axes.plot(seeds, [below] * len(seeds), ".", color=colour, markersize=3.5, alpha=0.7)
        if value.high > value.low and not value.points:
            ends = [scale * value.low, scale * value.high]
            axes.plot(ends, [y, y], color=colour, linewidth=1.6, solid_capstyle="round")
        hollow = (group, name) in figure.open
        face = PAPER if hollow else colour
        marker = MARKERS[s % len(MARKERS)]
        look: dict = {"marker": marker, "color": colour, "markerfacecolor": face}
        look |= {"markersize": 6, "markeredgewidth": 1.3, "clip_on": False}
        place: Any = {}
        if floor is not None and scale * value.mean < floor:  # an arrow at the left edge
            look, place = look | {"marker": "<"}, {"transform": axes.get_yaxis_transform()}
        (dot,) = axes.plot([0 if place else scale * value.mean], [y], **look, **place)
        tips.add(dot, f"{group}, {name}\n{figure.y} {shown(value, figure.percent)}")
        where = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        text = str(tables.show(value, scale, digits))
        at_right = (1, y)
        axes.annotate(text, at_right, xycoords=axes.get_yaxis_transform(), fontsize=8, **where)
    for s, name in enumerate(figure.series):
        look = {"marker": MARKERS[s % len(MARKERS)], "color": COLOURS[s % len(COLOURS)]}
        axes.plot([], [], linewidth=1.6, label=name, **look)
    for (name, level), dashes in zip(figure.marks, cycle(MARKS), strict=False):
        axes.axvline(scale * level, color=INK, linewidth=1, linestyle=dashes, label=name)
    axes.set_yticks(range(len(figure.groups)), [wrap(g, 26) for g in figure.groups])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(figure.groups) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    if figure.percent:
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, 0) if low < 0 <= lowest(figure) else low, min(high, 100.6))
    if floor is not None:
        axes.set_xlim(left=floor)
    further = "; ◂ lies further to the left" if floor is not None else ""
    axes.set_xlabel(with_unit(figure.y, figure.percent) + further)
    if count > 1 or figure.marks:
        drawn.legend(loc="outside lower center", ncols=across, handlelength=2.6)
    return drawn


def left_edge(figure: Dots) -> float | None:
    """Where the axis begins if a few means far below all others would squeeze these together; those
    few become arrows. None: the axis holds everything.

    Far below: by more than three times the distance between the quartiles (Tukey's far out), where
    leaving them out makes the axis at least four times as fine.

    >>> few = lambda *xs: tuple((tables.Estimate(x, x, x, 1),) for x in xs)
    >>> left_edge(Dots("t", "y", ("a", "b", "c", "d", "e"), ("s",), few(30, 98, 99, 99.5, 99)))
    97.925
    >>> left_edge(Dots("t", "y", ("a", "b", "c"), ("s",), few(90, 95, 99)))
    """
    scale = 100 if figure.percent else 1
    found = [v for group in figure.values for v in group if v is not None and isfinite(v.mean)]
    means = scale * np.array([v.mean for v in found])
    if len(means) < 5:
        return None
    first, third = np.quantile(means, (0.25, 0.75))
    kept = means >= first - 3 * max(third - first, 1e-12)
    ends = [scale * v.low for v, keep in zip(found, kept, strict=True) if keep and not v.points]
    ends += [*means[kept], *(scale * level for _, level in figure.marks)]
    low, high = min(ends), means.max()
    if kept.all() or high - means.min() < 4 * (high - low):
        return None
    return float(low - 0.05 * (high - low))


def key_columns(names: Sequence[str]) -> int:
    """Columns of a key, of which the width of a figure holds some 60 letters.

    >>> key_columns(["64-D", "128-D", "512-D"]), key_columns(["within-class whitened, 57.5 %"] * 2)
    (3, 1)
    """
    return max(1, min(3, len(names), 60 // (max(map(len, names)) + 9)))


def lowest(figure: Dots) -> float:
    """The least value of any interval; 0 where there is none."""
    return min((v.low for group in figure.values for v in group if v), default=0.0)


def short(text: str, length: int) -> str:
    """The text, or its beginning.

    >>> short("Albatross", 5)
    'Alba…'
    """
    return text if len(text) <= length else text[: length - 1] + "…"


def wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width)) or text


def draw_matrix(figure: Matrix, tips: Tips):
    """A heat map whose cells say their number and its interval."""
    scale = 100 if figure.percent else 1
    down, across = len(figure.rows), len(figure.columns)
    means = np.array([[np.nan if v is None else scale * v.mean for v in r] for r in figure.values])
    drawn = new(max(WIDE, 1.6 + 0.6 * across), 1.0 + 0.45 * down)
    axes = drawn.add_subplot()
    axes.imshow(np.ma.masked_invalid(means), cmap="Blues", aspect="auto")
    finite = means[np.isfinite(means)]
    dark = finite.min() + 0.6 * np.ptp(finite) if finite.size else np.inf
    digits = tables.decimals([v for row in figure.values for v in row], scale)
    for i, row in enumerate(figure.rows):
        for j, col in enumerate(figure.columns):
            value = figure.values[i][j]
            cell = tables.show(value, scale, digits)
            ink = "white" if means[i, j] > dark else ON_LIGHT
            lift = 0.12 if cell.interval else 0
            text = axes.text(j, i - lift, cell.text, ha="center", va="center", color=ink)
            tips.add(text, f"{row}, {col}\n{cell}{' %' if figure.percent else ''}")
            if cell.interval:
                axes.text(j, i + 0.23, cell.interval, ha="center", va="center", color=ink, size=7)
    longest = max((len(c) for c in figure.columns), default=0)
    turn = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if longest > 9 else {}
    axes.set_xticks(range(across), [short(c, 28) for c in figure.columns], **turn)
    axes.set_yticks(range(down), [wrap(r, 22) for r in figure.rows])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(figure.x)
    axes.set_ylabel(figure.y)
    return drawn


VECTOR: dict[type, Callable] = {Lines: draw_lines, Dots: draw_dots, Matrix: draw_matrix}
