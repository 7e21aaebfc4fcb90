"""Losses: nn.Modules, called as `loss(embeddings, labels, indices_tuple=None)` -> a scalar.

A new loss is a class and a line of LOSSES. `pml:CLASS` names one of pytorch-metric-learning's.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from nearkin.losses.borrowed import RIVALS, Rival, from_pml
from nearkin.losses.classification import CrossEntropy, NormalisedCrossEntropy
from nearkin.losses.fisher import FisherNCA
from nearkin.losses.group import GroupLoss
from nearkin.losses.lifted import LiftedStructure
from nearkin.losses.pairs import Contrastive
from nearkin.losses.proxy_graph import ProxyGML
from nearkin.losses.refined import GraphRefinement
from nearkin.losses.triplets import RatioTriplet, Triplet
from nearkin.losses.tuples import NPair, TupleRatio, TupleTriplet
from nearkin.losses.wrap.combined import Combined
from nearkin.losses.wrap.gradient_cache import cached_backward as cached_backward
from nearkin.losses.wrap.memory import Memory as Memory
from nearkin.names import construct, look_up

LOSSES: dict[str, type[nn.Module]] = {
    "combined": Combined,
    "contrastive": Contrastive,
    "cross-entropy": CrossEntropy,
    "fisher-nca": FisherNCA,
    "graph-refinement": GraphRefinement,
    "group": GroupLoss,
    "lifted-structure": LiftedStructure,
    "n-pair": NPair,
    "normalised-cross-entropy": NormalisedCrossEntropy,
    "proxy-gml": ProxyGML,
    "ratio-triplet": RatioTriplet,
    "triplet": Triplet,
    "tuple-ratio": TupleRatio,
    "tuple-triplet": TupleTriplet,
}


def make(
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    classes: int | None = None,
    dim: int | None = None,
) -> nn.Module:
    """The loss of this name: of LOSSES, of RIVALS, or pytorch-metric-learning's `pml:CLASS`.

    The number of training classes and the embedding size reach the constructors that want them.
    An unknown name or option is a ValueError that names the nearest valid one.

    >>> make("contrastive", {"margin": 2.0}).margin
    2.0
    """
    options = options or {}
    if name.startswith("pml:"):
        return from_pml(name.removeprefix("pml:"), options, classes, dim)
    known: dict[str, type[nn.Module] | Rival] = {**LOSSES, **RIVALS}
    loss = look_up(name, known, "loss")
    if isinstance(loss, Rival):
        return loss.build(options, classes, dim)
    return construct(loss, options, f"option of {name}", classes=classes, dim=dim)
