"""Omniglot: handwritten characters of fifty alphabets."""

from __future__ import annotations

import os
from dataclasses import replace
from glob import glob

from torch import Tensor

from nearkin.data.request import Request, folder_with
from nearkin.data.sets.listings import Listing, assembled
from nearkin.data.splits import Split, Splits


def omniglot(request: Request) -> Splits:
    """Omniglot: 964 characters of 30 alphabets train, 659 of 20 others test, 20 drawings of each.

    105 x 105 pixels, or the size asked for. Differs: white on black, as MNIST's digits are, so
    that what moves in from outside is background.
    """
    root, _ = folder_with(
        request.root, ["images_background"], "omniglot", ["omniglot-py", "omniglot"]
    )
    listings = {}
    for split, part in (("train", "images_background"), ("query", "images_evaluation")):
        if not (root / part).is_dir():
            raise ValueError(f"omniglot: no {part} in {root}; see `nearkin data where omniglot`")
        drawings = sorted(glob("*/character*/*.png", root_dir=root / part))
        pairs = [(f"{part}/{drawing}", os.path.dirname(drawing)) for drawing in drawings]
        if not pairs:
            raise ValueError(f"omniglot: no ALPHABET/characterNN/*.png in {root / part}")
        listings[split] = Listing.of(pairs)
    variant = "white on black"
    splits = assembled(
        "omniglot", root, listings, request, channels=1, variant=variant, showable=True
    )
    train, test = inverted(splits.train), inverted(splits.query)
    return replace(splits, train=train, query=test, gallery=test, inverted=True)


def inverted(split: Split) -> Split:
    """Black and white exchanged."""
    assert isinstance(split.inputs, Tensor)
    return replace(split, inputs=255 - split.inputs)
