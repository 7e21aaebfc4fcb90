"""Rows of before as rows of today: the same runs, under the hash that their recipes have now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nearkin.runs.identity import RUN
from nearkin.runs.recipe import DEFAULTS, Recipe


def migrated(row: Any, renamed: Mapping[str, str] | None = None) -> Any:
    """A row as `Store` reads it, from one of before; a row of today stays as it is.

    The runs by which a study chose settings were told by validate and the study's name, and are now
    by the recipe's trial. Hashes were of options as they were written, and are now of what they
    come to (`nearkin.runs.identity`). What is no row of a recipe that we know stays as it is too.

    Args:
        renamed: hash of before -> hash of today, of the rows that others may have started from.
    """
    if not isinstance(row, dict) or row.get("schema", 1) != 1:
        return row
    recipe, hash = row.get("recipe"), row.get("hash")
    if not isinstance(recipe, dict) or not isinstance(hash, str) or not RUN.fullmatch(hash):
        return row
    if "trial" not in recipe and row.get("study") and recipe.get("validate"):
        recipe = {**recipe, "trial": True}
    if recipe.keys() - DEFAULTS:
        return row
    try:
        found = Recipe(**recipe)
    except ValueError:
        return row
    start = (renamed or {}).get(found.start, found.start)
    found = replace(found, start=start)
    return {**row, "hash": found.hash, "recipe": {**recipe, "start": start}}
