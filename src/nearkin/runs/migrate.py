"""Rows of before as rows of today: the same runs, under the hash that their recipes have now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nearkin.data.sets.listings import pictures_left_out
from nearkin.data.terms import may_show
from nearkin.runs.identity import RUN
from nearkin.runs.recipe import DEFAULTS, Recipe

COMMON = {"hash", "study", "status", "cost", "versions", "machine", "data"}
OF_RUNS = {"metric", "metrics", "confusion", "files"}


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


def upgraded(raw: dict[str, Any]) -> dict[str, Any]:
    """A line of schema 1 as one of schema 2: its flags stood in words or had to be concluded, and
    the values of a measurement stood beside the common parts."""
    recipe, data, found = raw.get("recipe"), raw.get("data"), dict(raw)
    values = {k: v for k, v in raw.items() if k not in COMMON}
    if values and not OF_RUNS & raw.keys():
        found = {k: v for k, v in raw.items() if k in COMMON} | {"values": values}
    elif isinstance(recipe, dict):
        found.setdefault("data", {"name": recipe.get("data", DEFAULTS["data"])})
    if isinstance(data, dict):
        flags = {
            "left_out": pictures_left_out(str(data.get("variant", ""))),
            "showable": may_show(str(data.get("name", ""))),
        }
        found["data"] = flags | data
    return found
