"""What all drawn figures share: colours, style, and SVG that says its numbers.

An SVG keeps its text as text and says its numbers when one points at them; a page inlines it, a
Markdown page shows it as a file. The same figure gives the same bytes every time. Colours are
those of Okabe and Ito (Color universal design, 2008), told apart without normal colour vision.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from nearkin.extras import optional

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222", "#882255")
INK = "#222222"
PAPER = "#ffffff"
STRIPE = "#f4f5f7"
ON_LIGHT = "#212121"  # of text on a light cell, which stays light in the dark

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nearkin",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "figure.constrained_layout.use": True,
}
WIDE = 4.9  # inches: text stays readable where a phone shows it 360 pixels wide


@contextmanager
def drawing() -> Iterator[None]:
    """Our style, and no word about letters that the font lacks."""
    with optional():
        import matplotlib

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def new(width: float, height: float):
    """A figure that no global state knows of."""
    with optional():
        from matplotlib.figure import Figure as Drawn

    return Drawn(figsize=(width, height))


class Tips:
    """The tips that an SVG shows when one points at its parts."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, artist, text: str) -> None:
        artist.set_gid(f"tip-{len(self.texts)}")
        self.texts.append(text)

    def title(self, match: re.Match) -> str:
        return f"<g><title>{escape(self.texts[int(match[1])])}</title>"


def as_svg(draw: Callable[[Tips], Any]) -> str:
    """What `draw` gives, with its tips, as SVG that scales to whatever holds it."""
    tips, buffer = Tips(), io.StringIO()
    with drawing():
        drawn = draw(tips)
        drawn.patch.set_visible(False)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawn.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<g id="tip-(\d+)">', tips.title, text)
    text = re.sub(r'<g id="[a-z]\w*">', "<g>", text)
    text = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    # joins and ends of all strokes: on the root, where they cannot leak into a page
    return text.replace("<svg ", '<svg style="stroke-linejoin: round; stroke-linecap: butt" ', 1)


THEMED = {
    INK: "var(--ink)",
    "#444444": "var(--soft)",
    "#888888": "var(--line)",
    "#e4e4e4": "var(--line)",
    PAPER: "var(--paper)",
    STRIPE: "var(--wash)",
}
"""Colours of a figure that a page gives its own, light or dark."""


def themed(text: str) -> str:
    """An SVG whose ink, lines and paper are those of the page that holds it."""
    return re.sub(r"#[0-9a-f]{6}", lambda match: THEMED.get(match[0], match[0]), text)


def on_paper(text: str) -> str:
    """An SVG on white, for those who show it on any ground."""
    head = text.index(">", text.index("<svg ")) + 1
    return f'{text[:head]}<rect width="100%" height="100%" fill="{PAPER}"/>{text[head:]}'
