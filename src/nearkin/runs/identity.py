"""What makes two recipes one: their canonical form, from which their hash is made."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from nearkin.data.sets.catalogue import ENDINGS
from nearkin.extras import PACKAGED
from nearkin.files import expanded, resolved
from nearkin.names import Plain, parameters_of, resolve, without_defaults
from nearkin.registry import DATASETS, FORMS

if TYPE_CHECKING:
    from nearkin.runs.recipe import Recipe

RUN = re.compile(r"[0-9a-f]{12}")
"""The hash of a run, where a file could stand as well."""
FILE = "file"
"""What stands in a canonical recipe for a file that is told by its content, not by its name."""
WEIGHTS = ("hub", "none", *PACKAGED)
"""Weights of a backbone that are no file."""
SIDES = {
    "mnist-5k": 28,
    "mnist": 28,
    "fashion-mnist": 28,
    "omniglot": 105,
    "cub": 128,
    "cars": 128,
    "sop": 128,
    "inshop": 128,
}
"""The side in pixels that size=0 means for a data set; where that is not here, it is as the
pictures are. It never changes: see `Recipe`'s defaults."""


def hash_of(recipe: Recipe) -> str:
    """12 hex digits of the canonical form."""
    text = json.dumps(canonical(recipe), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def key_of(hash: str, data: str, made_of: Mapping[str, str] | None = None) -> str:
    """The hash of a recipe, and 8 hex digits of the fingerprints of what a run was made of.

    It names one run, and may name its folder. Without any fingerprint it is the hash alone.

    >>> key_of("0123456789ab", "", {}), key_of("0123456789ab", "6ed975578302efd6")
    ('0123456789ab', '0123456789ab-592dd426')
    """
    parts = {"data": data, **(made_of or {})}
    parts = {name: fingerprint for name, fingerprint in parts.items() if fingerprint}
    if not parts:
        return hash
    text = json.dumps(parts, sort_keys=True)
    return f"{hash}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


def canonical(recipe: Recipe) -> dict[str, Any]:
    """The fields that differ from the defaults, each written in the one way that counts.

    Options have the types that their constructor takes, and those that repeat its defaults are left
    out, as is a size that the pictures have anyway. A path is cut to its last name, and files of
    weights are "file": rows hold fingerprints of what they were made of, which tell them apart.

    >>> from nearkin.runs.recipe import Recipe
    >>> canonical(Recipe(data="features:/home/me/x.npz", loss_options={"form": "right"}))
    {'data': 'features:x.npz'}
    """
    changes = recipe.changes()
    if "data" in changes:
        changes["data"] = named(recipe.data)
    if recipe.start and not RUN.fullmatch(recipe.start):
        changes["start"] = FILE
    if recipe.size and SIDES.get(recipe.data) == recipe.size:
        del changes["size"]
    if recipe.loss_options:
        from nearkin import losses

        known = losses.parameters(recipe.loss, recipe.loss_options)
        changes["loss_options"] = without_defaults(recipe.loss_options, known, losses.OFFERED)
    if recipe.backbone_options:
        from nearkin import models

        known = models.parameters(recipe.backbone)
        changes["backbone_options"] = without_weights(
            without_defaults(recipe.backbone_options, known)
        )
    if recipe.head_options:
        known = parameters_of(resolve(FORMS.get(recipe.head_start, dict)))
        changes["head_options"] = without_defaults(recipe.head_options, known)
    return {k: v for k, v in changes.items() if v != {}}


def named(data: str) -> str:
    """A data set without the folder in which it lies; a path alone with its kind.

    >>> named("features:/a/x.npz"), named("folder:b/birds/"), named("cub")
    ('features:x.npz', 'folder:birds', 'cub')
    >>> named("a/x.npz"), named("birds")
    ('features:x.npz', 'folder:birds')
    """
    kind, colon, path = data.partition(":")
    if kind not in DATASETS:
        kind, path = ENDINGS.get(PurePath(data).suffix.lower(), "folder"), data
    elif not colon:
        return data
    name = PurePath(path).name
    if name in ("", ".", ".."):
        name = resolved(expanded(path)).name
    return f"{kind}:{unicodedata.normalize('NFC', name)}"


def without_weights(options: Mapping[str, Plain]) -> dict[str, Plain]:
    """The backbone's options, less the name of a file of weights.

    >>> without_weights({"weights": "a/b.safetensors", "pool": "gem"})
    {'weights': 'file', 'pool': 'gem'}
    """
    weights = options.get("weights", WEIGHTS[0])
    return {**options, "weights": FILE} if weights not in WEIGHTS else dict(options)
