"""`nearkin train`: one recipe, run and stored."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

from tyro.conf import OmitArgPrefixes

from nearkin.app.output import Labels, MadeBy, Output
from nearkin.runs.recipe import Recipe


def train(
    recipe: OmitArgPrefixes[Recipe],
    output: OmitArgPrefixes[Output] = Output(),
    features: OmitArgPrefixes[MadeBy] = MadeBy(),
    labels: Labels = "",
) -> None:
    """Train and evaluate one recipe; store its row under --out, and its Model in OUT/runs/HASH.

    --recipe FILE reads one from JSON, a row's too; other flags change what it says.

    Example: nearkin train --data mnist-5k --loss ratio-triplet --dim 64 --epochs 8

    Example: nearkin train --data photos/ --labels nested --backbone lite0 --size 224 --out grocery

    Example: nearkin train --recipe my.json --loss contrastive --loss-options margin=0.5

    Args:
        labels: of a folder of pictures, which folders on the way to one name its class: all
            (nested), the last (parent) or the first (top).
    """
    from nearkin.data.sets.catalogue import with_labels
    from nearkin.runs.engine import run
    from nearkin.runs.log import bar
    from nearkin.runs.machine import keep_freed_memory

    keep_freed_memory()
    with bar() as shown:
        place = replace(output.place(), **vars(features))
        recipe = replace(recipe, data=with_labels(recipe.data, labels))
        row = run(recipe, output.out, place=place, bar=shown)
    if row.stored:
        hash = row.row.hash
        print(f"nearkin: {hash} is stored in {output.out}: nothing was run", file=sys.stderr)
    print(json.dumps({"hash": row["hash"], "status": row["status"], **row["metrics"]}, indent=2))
