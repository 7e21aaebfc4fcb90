"""Maps and galleries as PNG, by matplotlib: what a Markdown page shows of them."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable
from pathlib import Path

from nearkin.report.plots import INK, drawing, new, svg, wrap
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
)
from nearkin.studies.answer import Figure, Gallery, Maps


def class_colour(label: int) -> str:
    """The colour of a class: the first ten have their own, all others are grey."""
    return CLASS_COLOURS[label] if label < len(CLASS_COLOURS) else OTHER


def draw_maps(figure: Maps, store: Path):
    """The maps in one frame, up to four side by side."""
    views = panels(figure, store)
    across = min(len(views), 4) if len(views) != 6 else 3
    down = -(-len(views) // across)
    drawn = new(2.3 * across, 2.6 * down)
    for i, view in enumerate(views):
        axes = drawn.add_subplot(down, across, i + 1, aspect="equal")
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color("#CCCCCC")
        if isinstance(view, str):
            axes.set_title(wrap(view, 30), fontsize=9)
            axes.text(0.5, 0.5, "embeddings not kept here", ha="center", color="#777777")
        else:
            axes.set_title(wrap(view.name, 30), fontsize=9)
            draw_panel(axes, view)
    return drawn


def draw_panel(axes, view: Panel) -> None:
    """One map: its points, the names of its classes, its ruler."""
    from matplotlib.patheffects import withStroke

    colours = [class_colour(c) for c in view.kept.labels]
    axes.scatter(*view.points.T, s=1.6, c=colours, alpha=0.6, linewidths=0)
    halo = [withStroke(linewidth=2, foreground="white")]
    for c, x, y in view.labels:
        name = textwrap.shorten(view.kept.classes[c], 12, placeholder="…")
        look = {"color": class_colour(c), "weight": "bold", "path_effects": halo}
        axes.text(x, y, name, ha="center", va="center", **look)
    text, length = view.ruler
    axes.plot([0.03, 0.03 + length], [0.03, 0.03], color=INK, linewidth=1.2)
    axes.text(0.03, 0.045, text, fontsize=7, path_effects=halo)
    axes.set_xlabel(wrap(view.caption, 36), fontsize=8)


def draw_gallery(figure: Gallery, store: Path):
    """Each question and what was found, framed: wrong in dashed red with a cross."""
    view = answers(figure, store)
    if view is None:
        drawn = new(4, 1)
        drawn.text(0.5, 0.5, "embeddings not kept here", ha="center", color="#777777")
        return drawn
    questions = [*view.wrong, *view.right]
    across = 1 + max((len(q.found) for q in questions), default=0)
    drawn = new(1.0 * across, max(1.0, 1.2 * len(questions)))
    for i, question in enumerate(questions):
        for j in range(1 + len(question.found)):
            axes = drawn.add_subplot(len(questions), across, i * across + j + 1)
            draw_tile(axes, view, question, j)
    return drawn


def draw_tile(axes, view: Answers, question: Question, j: int) -> None:
    """The question itself (j = 0) or its j-th neighbour: its picture, or its name without one."""
    item = question.found[j - 1] if j else question.item
    kept = view.kept
    axes.set(xticks=[], yticks=[])
    if kept.pictures is not None:
        axes.imshow(kept.pictures[item], cmap="gray")
        name = kept.kind(item)
    else:
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.text(0.5, 0.5, wrap(kept.kind(item), 12), ha="center", va="center", fontsize=7)
        name = ""
    right = not j or question.right[j - 1]
    mark = "" if not j else "✓ " if right else "✗ "
    colour = INK if not j else RIGHT if right else WRONG
    axes.set_title(textwrap.shorten(mark + name, 16, placeholder="…"), fontsize=8, color=colour)
    axes.spines[:].set(visible=True, color=colour, linewidth=2, linestyle="-" if right else "--")


RASTER: dict[type, Callable] = {Maps: draw_maps, Gallery: draw_gallery}


def png(figure: Maps | Gallery, store: Path) -> bytes:
    """The figure as a PNG of 256 colours, which keeps it small."""
    from PIL import Image

    buffer, small = io.BytesIO(), io.BytesIO()
    with drawing():
        drawn = RASTER[type(figure)](figure, store)
        drawn.savefig(buffer, format="png", dpi=140)
    Image.open(buffer).convert("RGB").quantize(256).save(small, "PNG", optimize=True)
    return small.getvalue()


def save(figure: Figure, stem: Path, store: Path) -> Path:
    """Write the figure as a picture beside `stem`, under the ending that suits it."""
    if isinstance(figure, Maps | Gallery):
        path, content = stem.with_suffix(".png"), png(figure, store)
    else:
        path, content = stem.with_suffix(".svg"), svg(figure).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
