"""A batch's graph as a picture: its images in a circle, attention as the width of the edges.

Dimensions: n images of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from nearkin.answers import BatchGraphs
from nearkin.report.canvas import Tips, as_svg, new
from nearkin.report.items import file_of, unless_harmed
from nearkin.report.views import CLASS_COLOURS, RIGHT
from nearkin.runs.row import Row

WIDEST = 6.0  # points, of the strongest edge
INK = 150.0  # points, all edges of a graph together: where all listen to all, a web and no disc
FAINT = 0.2  # points: narrower edges are not drawn
ACROSS_CLASSES = "#9A9A9A"


@dataclass(frozen=True)
class Batch:
    """The images of some classes of a batch, class by class.

    attention: (n, n), what i gives to j.  labels: (n,).  pictures: (n, H, W) or (n, H, W, 3).
    """

    attention: np.ndarray
    labels: np.ndarray
    pictures: np.ndarray


def read(row: Row, store: Path) -> Batch | None:
    """What the row's run kept of a batch; None where there is nothing, or nothing to be shown."""
    path = file_of(row, store, "attention")
    if path is None or not row.data.showable:
        return None
    return unless_harmed(path, batch_of)


def batch_of(arrays: Mapping[str, np.ndarray]) -> Batch:
    """The batch of a file of attention.

    Raises:
        KeyError, ValueError: an array is missing, or does not fit the others.
    """
    view = Batch(arrays["attention"], arrays["y"].astype(int), arrays["pictures"])
    n = len(view.labels)
    if view.attention.shape != (n, n) or len(view.pictures) != n:
        raise ValueError(f"wanted attention ({n}, {n}), got {view.attention.shape}")
    return view


def svg(figure: BatchGraphs, store: Path) -> str:
    """The figure as SVG."""
    return as_svg(partial(draw, figure, store))


def draw(figure: BatchGraphs, store: Path, tips: Tips):
    """The graphs of all runs side by side; edges of one scale, so that they can be compared."""
    views = [(name, read(row, store)) for name, row in figure.rows]
    graphs = [between(v) for _, v in views if v is not None]
    most = max((edges.max(initial=0) / WIDEST for edges in graphs), default=0)
    most = max([most, *(edges.sum() / 2 / INK for edges in graphs)]) or 1.0
    drawn = new(3.1 * max(len(views), 1), 3.4)
    drawn.suppressComposite = True  # each picture keeps its own pixels
    for i, (name, view) in enumerate(views):
        axes = drawn.add_subplot(1, len(views), i + 1, aspect="equal")
        axes.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
        axes.set_axis_off()
        axes.set_title(name, fontsize=10)
        if view is None:
            axes.text(0, 0, "the batch is not kept here", ha="center", color="#777777")
        else:
            draw_batch(axes, view, most, tips)
    return drawn


def between(view: Batch) -> np.ndarray:
    """Attention between two images, both ways together (n, n); none of an image with itself."""
    both = (view.attention + view.attention.T) / 2
    return both * ~np.eye(len(both), dtype=bool)


def draw_batch(axes, view: Batch, point: float, tips: Tips) -> None:
    """One graph: curved edges, green within a class; above them the images, framed by class.

    point: the attention that is drawn one point wide.
    """
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path as Curve

    n, edges = len(view.labels), between(view)
    angle = 2 * np.pi * (np.arange(n) + 0.4 * np.cumsum(np.r_[0, np.diff(view.labels) != 0]))
    angle /= n + 0.4 * len(np.unique(view.labels))  # a gap from class to class
    place = np.stack([np.sin(angle), np.cos(angle)], 1)
    pairs = [(i, j) for i in range(n) for j in range(i) if edges[i, j] > FAINT * point]
    for i, j in sorted(pairs, key=lambda pair: edges[pair]):
        kin = view.labels[i] == view.labels[j]
        curve = [place[i], 0.35 * (place[i] + place[j]) / 2, place[j]]
        patch = PathPatch(
            Curve(curve, [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3]),
            facecolor="none",
            edgecolor=RIGHT if kin else ACROSS_CLASSES,
            linewidth=edges[i, j] / point,
            alpha=0.75 if kin else 0.55,
        )
        tips.add(patch, f"{100 * edges[i, j]:.1f} % of attention")
        axes.add_patch(patch)
    side = min(0.26, 5.2 / max(n, 1))
    kinds = {label: number for number, label in enumerate(dict.fromkeys(view.labels.tolist()))}
    for (x, y), picture, label in zip(1.04 * place, view.pictures, view.labels, strict=True):
        left, bottom = x - side / 2, y - side / 2
        extent = (left, left + side, bottom, bottom + side)
        axes.imshow(picture, cmap="gray", interpolation="none", extent=extent, zorder=3)
        colour = CLASS_COLOURS[kinds[int(label)] % len(CLASS_COLOURS)]
        frame = Rectangle((left, bottom), side, side, fill=False, edgecolor=colour, linewidth=1.6)
        frame.set_zorder(4)
        axes.add_patch(frame)
    axes.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
