"""Cuts the picture of README out of the maps of the toolkit's page: python docs/site/digits.py.

Eight of the thirteen methods, two full rows: each loss once, without its misprinted form, its L2
term and its variants.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from nearkin.studies.shared.methods import UNTRAINED
from nearkin.studies.toolkit.methods import METHODS

PAGE = Path(__file__).parents[1] / "results" / "toolkit-mnist" / "figure-2.png"
PICTURE = Path(__file__).parent / "_static" / "digits.png"
ACROSS = 4
"""Maps side by side, on the page as in README."""
SHOWN = (
    *("cross-entropy", "Siamese (1-3)", "triplet (4-6)", "n-tuple (7)"),
    *("triplet on tuple", "tuple ratio (8)", "combined", "ours: Fisher NCA"),
)


def cut() -> Image.Image:
    """The maps that README shows, ACROSS side by side."""
    page = Image.open(PAGE).convert("RGB")
    names = [name for name in METHODS if name != UNTRAINED]
    width, height = page.width // ACROSS, page.height // -(-len(names) // ACROSS)
    picture = Image.new("RGB", (ACROSS * width, len(SHOWN) // ACROSS * height), "white")
    for i, name in enumerate(SHOWN):
        row, column = divmod(names.index(name), ACROSS)
        left, top = column * width, row * height
        part = page.crop((left, top, left + width, top + height))
        picture.paste(part, (i % ACROSS * width, i // ACROSS * height))
    return picture


if __name__ == "__main__":
    cut().quantize(256).save(PICTURE, optimize=True)
