"""Data sets by name, and what batches are drawn from them.

>>> from nearkin.data import load
>>> load("mnist-5k").train.inputs.shape
torch.Size([4000, 1, 28, 28])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nearkin.extras import optional
from nearkin.names import resolve
from nearkin.registry import AUGMENTS as AUGMENTS
from nearkin.registry import DATASETS as DATASETS
from nearkin.registry import SAMPLERS as SAMPLERS

if TYPE_CHECKING:
    from nearkin.data.archives import unpack as unpack
    from nearkin.data.own import own_splits as own_splits
    from nearkin.data.request import default_root as default_root
    from nearkin.data.samplers import Batches as Batches
    from nearkin.data.samplers import structure as structure
    from nearkin.data.sets.catalogue import load as load
    from nearkin.data.soundness import check as check
    from nearkin.data.splits import Split as Split
    from nearkin.data.splits import Splits as Splits
    from nearkin.data.splits import hold_out as hold_out
    from nearkin.data.splits import subset as subset
    from nearkin.data.terms import where as where

NAMES = {
    "Batches": "nearkin.data.samplers:Batches",
    "Split": "nearkin.data.splits:Split",
    "Splits": "nearkin.data.splits:Splits",
    "check": "nearkin.data.soundness:check",
    "default_root": "nearkin.data.request:default_root",
    "hold_out": "nearkin.data.splits:hold_out",
    "load": "nearkin.data.sets.catalogue:load",
    "own_splits": "nearkin.data.own:own_splits",
    "structure": "nearkin.data.samplers:structure",
    "subset": "nearkin.data.splits:subset",
    "unpack": "nearkin.data.archives:unpack",
    "where": "nearkin.data.terms:where",
}
"""Imported when they are first used, so that a picture can be read without torch."""


def __getattr__(name: str) -> Any:
    if name in NAMES:
        with optional():
            return resolve(NAMES[name])
    raise AttributeError(f"nearkin.data has no {name!r}")
