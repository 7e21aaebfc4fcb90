"""Data sets by name, and what batches are drawn from them.

>>> load("mnist-5k").train.inputs.shape
torch.Size([4000, 1, 28, 28])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nearkin.data.archives import unpack as unpack
from nearkin.data.request import default_root as default_root
from nearkin.data.samplers import Batches as Batches
from nearkin.data.samplers import structure as structure
from nearkin.data.sets.catalogue import load as load
from nearkin.data.splits import Split as Split
from nearkin.data.splits import Splits as Splits
from nearkin.data.splits import hold_out as hold_out
from nearkin.data.splits import subset as subset
from nearkin.data.terms import where as where
from nearkin.extras import optional
from nearkin.registry import AUGMENTS as AUGMENTS
from nearkin.registry import DATASETS as DATASETS
from nearkin.registry import SAMPLERS as SAMPLERS

if TYPE_CHECKING:
    from nearkin.data.soundness import check as check


def __getattr__(name: str) -> Any:
    """`check`, which reads pictures and so needs more than torch."""
    if name != "check":
        raise AttributeError(f"nearkin.data has no {name!r}")
    with optional():
        from nearkin.data.soundness import check

    return check
