"""The pictures of a Markdown page: maps and galleries as PNG, by matplotlib, all others as SVG.

A picture of what runs have kept says in itself of which runs: where their files are not, on another
machine or after a clean-up, it stays as it was drawn.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from nearkin.answers import BatchGraphs, Figure, Gallery, Maps
from nearkin.files import write_whole
from nearkin.report import batch_graphs
from nearkin.report.canvas import INK, drawing, new, on_paper
from nearkin.report.items import file_of
from nearkin.report.plots import short, svg, wrap
from nearkin.report.views import (
    CLASS_COLOURS,
    OTHER,
    RIGHT,
    WRONG,
    Answers,
    Panel,
    Question,
    answers,
    panels,
    tags,
)
from nearkin.runs.row import Row


def class_colour(label: int) -> str:
    """The colour of a class: the first ten have their own, all others are grey."""
    return CLASS_COLOURS[label] if label < len(CLASS_COLOURS) else OTHER


def draw_maps(figure: Maps, store: Path):
    """The maps in one frame, up to four side by side, and what their letters stand for."""
    views = panels(figure, store)
    across = min((4, 5, 3), key=lambda n: -len(views) % n) if len(views) > 4 else len(views)
    down = -(-len(views) // across)
    drawn = new(2.3 * across, 2.7 * down)
    for i, view in enumerate(views):
        axes = drawn.add_subplot(down, across, i + 1, aspect="equal")
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color="#CCCCCC")
        axes.set_title(wrap(view if isinstance(view, str) else view.name, 30), fontsize=9)
        if isinstance(view, str):
            axes.text(0.5, 0.5, "embeddings not kept here", ha="center", color="#777777")
        else:
            draw_panel(axes, view)
    keys = dict.fromkeys(view.items.classes for view in views if isinstance(view, Panel))
    lines = [key_line(classes, 34 * across) for classes in keys]
    drawn.supxlabel("\n".join(filter(None, lines)), fontsize=8)
    drawn.set_layout_engine("constrained", h_pad=0.1)
    return drawn


def key_line(classes: tuple[str, ...], width: int) -> str:
    """A Albatross, B Auk, ... where letters stand for names, and how many classes are grey."""
    named = zip(tags(classes), classes, strict=False)
    parts = [f"{tag} {name}" for tag, name in named if tag != name]
    more = len(classes) - len(CLASS_COLOURS)
    parts += [f"{more} more classes in grey"] if more > 0 else []
    return wrap(", ".join(parts), width)


def draw_panel(axes, view: Panel) -> None:
    """One map: its points, the tags of its classes, its ruler."""
    from matplotlib.patheffects import withStroke

    labels = view.items.labels
    order = np.argsort(labels < len(CLASS_COLOURS), kind="stable")  # colours above grey
    colours = [class_colour(c) for c in labels[order]]
    axes.scatter(*view.points[order].T, s=1.6, c=colours, alpha=0.6, linewidths=0)
    halo = [withStroke(linewidth=2.4, foreground="white")]
    names = tags(view.items.classes)
    for c, x, y in view.labels:
        look = {"weight": "bold", "fontsize": 8.5, "path_effects": halo}
        axes.text(x, y, names[c], ha="center", va="center", **look)
    text, length = view.ruler
    axes.plot([0.03, 0.03 + length], [0.03, 0.03], color=INK, linewidth=1.2)
    axes.text(0.03, 0.045, text, fontsize=7, path_effects=halo)
    axes.set_xlabel(wrap(view.caption, 36), fontsize=8)


def draw_gallery(figure: Gallery, store: Path):
    """Wrong answers to the left, right ones to the right: each question, then what was found."""
    view = answers(figure, store)
    if view is None:
        drawn = new(4, 1)
        why = "embeddings not kept here,\nor no two of one class"
        drawn.text(0.5, 0.5, why, ha="center", va="center", color="#777777")
        return drawn
    groups = [(name, group) for name, group in view.groups() if group]
    across = 1 + max(len(question.found) for _, group in groups for question in group)
    down = max(len(group) for _, group in groups)
    width, height = len(groups) * (across + 0.6), 1.3 * down + 0.4  # in tiles
    drawn = new(0.85 * width, 0.85 * height)
    drawn.set_layout_engine("none")
    axes = drawn.add_axes((0, 0, 1, 1), xlim=(-0.1, width - 0.1), ylim=(height - 0.4, -0.4))
    axes.set_axis_off()
    for half, (name, group) in enumerate(groups):
        left = half * (across + 0.6)
        axes.text(left, -0.2, name, fontsize=10, weight="bold")
        for i, question in enumerate(group):
            for j in range(1 + len(question.found)):
                draw_tile(axes, view, question, j, left + j + 0.2 * (j > 0), 1.3 * i + 0.25)
    return drawn


def draw_tile(axes, view: Answers, question: Question, j: int, x: float, y: float) -> None:
    """The question itself (j = 0) or its j-th neighbour: its picture, or its name without one.

    Framed in green where right; dashed, in red and with a cross, where wrong.
    """
    from matplotlib.patches import Rectangle

    items, item = view.items, question.found[j - 1] if j else question.item
    right = not j or question.right[j - 1]
    mark = "" if not j else "✓ " if right else "✗ "
    colour = INK if not j else RIGHT if right else WRONG
    side, name = 0.9, items.kind(item)
    if items.pictures is not None:
        axes.imshow(items.pictures[item], cmap="gray", extent=(x, x + side, y + side, y))
        axes.text(x + side / 2, y - 0.05, short(mark + name, 14), ha="center", fontsize=7.5)
    else:
        middle = {"ha": "center", "va": "center", "fontsize": 7}
        axes.text(x + side / 2, y + side / 2, wrap(short(name, 36), 12), **middle)
        axes.text(x + side / 2, y - 0.05, mark, ha="center", fontsize=8)
    look = {"edgecolor": colour, "linewidth": 2, "linestyle": "-" if right else "--"}
    axes.add_patch(Rectangle((x, y), side, side, fill=False, **look))


RASTER: dict[type, Callable] = {Maps: draw_maps, Gallery: draw_gallery}


def png(figure: Maps | Gallery, store: Path, origin: str = "") -> bytes:
    """The figure as a PNG that holds its origin as text; a map, which has few colours, as
    one of 256, which keeps it small."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    drawn_file, small, info = io.BytesIO(), io.BytesIO(), PngInfo()
    info.add_text("rows", origin)
    with drawing():
        drawn = RASTER[type(figure)](figure, store)
        drawn.savefig(drawn_file, format="png", dpi=130)
    image = Image.open(drawn_file).convert("RGB")
    image = image.quantize(256) if isinstance(figure, Maps) else image
    image.save(small, "PNG", optimize=True, pnginfo=info)
    return small.getvalue()


def drawings(folder: Path) -> dict[str, bytes]:
    """The pictures of a page that say of which runs they were drawn: origin -> content."""
    found = {}
    for path in sorted(folder.glob("figure-*")):
        content = path.read_bytes()
        if origin := ORIGIN.search(content):
            found[origin[0].decode()] = content
    return found


ORIGIN = re.compile(rb"(Maps|Gallery|BatchGraphs)\([0-9a-f ]*\)")


def save(figure: Figure, stem: Path, store: Path, earlier: Mapping[str, bytes]) -> Path | None:
    """Write the figure as a picture beside `stem`, under the ending that suits it.

    Where files that it is drawn from are not in the store, an earlier drawing of the same runs is
    taken as it is, whatever its number was. None: there is none, and none of the files.

    Args:
        earlier: the `drawings` of the page before any of its pictures is written.
    """
    path = stem.with_suffix(".png" if isinstance(figure, Maps | Gallery) else ".svg")
    rows, kind = drawn_from(figure)
    origin = f"{type(figure).__name__}({' '.join(sorted(row.hash for row in rows))})"
    here = [file_of(row, store, kind) is not None for row in rows]
    if not all(here) and origin in earlier:
        content = earlier[origin]
    elif rows and not any(here):
        return None
    elif isinstance(figure, Maps | Gallery):
        content = png(figure, store, origin)
    elif isinstance(figure, BatchGraphs):
        content = f"{on_paper(batch_graphs.svg(figure, store))}<!-- {origin} -->\n".encode()
    else:
        content = on_paper(svg(figure)).encode()
    write_whole(path, lambda file: file.write(content))
    return path


def drawn_from(figure: Figure) -> tuple[list[Row], str]:
    """The rows whose files a figure is drawn from, and which of their files; of values, none."""
    match figure:
        case Maps():
            return [row for _, row in figure.rows], "embeddings"
        case Gallery():
            return [figure.row], "embeddings"
        case BatchGraphs():
            return [row for _, row in figure.rows], "attention"
        case _:
            return [], ""
