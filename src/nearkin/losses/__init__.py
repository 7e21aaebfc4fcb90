"""Losses: nn.Modules, called as `loss(embeddings, labels, indices_tuple=None)` -> a scalar.

A new loss is a class and a line of LOSSES; protocol.py says what the class must have. A name is
imported when it is first used. `pml:CLASS` names one of pytorch-metric-learning's.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from nearkin.names import construct, look_up, parameters_of, resolve
from nearkin.registry import LOSSES as LOSSES
from nearkin.registry import MINERS

if TYPE_CHECKING:
    from torch import nn

    from nearkin.losses.borrowed.named import Borrowed as Borrowed
    from nearkin.losses.borrowed.rivals import ArcFace as ArcFace
    from nearkin.losses.borrowed.rivals import Margin as Margin
    from nearkin.losses.borrowed.rivals import MultiSimilarity as MultiSimilarity
    from nearkin.losses.borrowed.rivals import PMLContrastive as PMLContrastive
    from nearkin.losses.borrowed.rivals import PMLNPair as PMLNPair
    from nearkin.losses.borrowed.rivals import ProxyAnchor as ProxyAnchor
    from nearkin.losses.borrowed.rivals import ProxyNCA as ProxyNCA
    from nearkin.losses.borrowed.rivals import SemiHardTriplet as SemiHardTriplet
    from nearkin.losses.borrowed.rivals import SoftTriple as SoftTriple
    from nearkin.losses.borrowed.rivals import SupCon as SupCon
    from nearkin.losses.classification import CrossEntropy as CrossEntropy
    from nearkin.losses.classification import NormalisedCrossEntropy as NormalisedCrossEntropy
    from nearkin.losses.clustering import Clustering as Clustering
    from nearkin.losses.fisher import FisherNCA as FisherNCA
    from nearkin.losses.graph_refinement import GraphRefinement as GraphRefinement
    from nearkin.losses.group import GroupLoss as GroupLoss
    from nearkin.losses.hdc import HDC as HDC
    from nearkin.losses.hdml import HDML as HDML
    from nearkin.losses.hierarchical import HierarchicalTriplet as HierarchicalTriplet
    from nearkin.losses.lifted import LiftedStructure as LiftedStructure
    from nearkin.losses.mining import AllPairs as AllPairs
    from nearkin.losses.mining import SpanningTree as SpanningTree
    from nearkin.losses.pairs import Contrastive as Contrastive
    from nearkin.losses.protocol import Loss as Loss
    from nearkin.losses.protocol import param_groups as param_groups
    from nearkin.losses.proxy_graph import ProxyGML as ProxyGML
    from nearkin.losses.triplets import RatioTriplet as RatioTriplet
    from nearkin.losses.triplets import Triplet as Triplet
    from nearkin.losses.tuples import NPair as NPair
    from nearkin.losses.tuples import TupleRatio as TupleRatio
    from nearkin.losses.tuples import TupleTriplet as TupleTriplet
    from nearkin.losses.wrap.combined import Combined as Combined
    from nearkin.losses.wrap.gradient_cache import cached_backward as cached_backward
    from nearkin.losses.wrap.matryoshka import Matryoshka as Matryoshka
    from nearkin.losses.wrap.memory import Memory as Memory

KNOWN = ("classes", "dim", "features")
"""What a run knows of itself, and hands to the losses that want it."""

OFFERED = (*KNOWN, "num_classes", "embedding_size", "descriptors_dim")
"""Arguments of losses that a run knows: as options they may only repeat its values."""

OTHERS = (
    "nearkin.losses.borrowed.named:Borrowed",
    "nearkin.losses.graph_refinement:GraphRefinement",
    "nearkin.losses.mining:AllPairs",
    "nearkin.losses.mining:SpanningTree",
    "nearkin.losses.protocol:Loss",
    "nearkin.losses.protocol:param_groups",
    "nearkin.losses.wrap.gradient_cache:cached_backward",
    "nearkin.losses.wrap.memory:Memory",
)
"""Public names of `nearkin.losses` that no recipe calls by name."""


def make(
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    classes: int | None = None,
    dim: int | None = None,
    features: int | None = None,
) -> nn.Module:
    """The loss of this name: of LOSSES, or pytorch-metric-learning's `pml:CLASS`.

    The number of training classes, the embedding size and the size of the trunk's features reach
    the constructors that want them. An unknown name or option is a ValueError that names the
    nearest valid one.

    >>> make("contrastive", {"margin": 2.0}).margin
    2.0
    """
    if name.startswith("pml:"):
        named = resolve("nearkin.losses.borrowed.named:Borrowed")
        return named(name.removeprefix("pml:"), options, classes, dim)
    loss = look_up(name, LOSSES, "loss")
    renamed = resolve("nearkin.losses.protocol:renamed")(options or {})
    known = dict(zip(KNOWN, (classes, dim, features), strict=True))
    with resolve("nearkin.budget:to_train")(f"loss {name!r}"):
        return construct(loss, renamed, f"option of {name}", **known)


def make_miner(name: str, metric: str | None = None) -> nn.Module:
    """The miner of this name, with its defaults: of MINERS.

    metric: that of the loss, for a miner which looks at distances as the loss does.
    """
    return construct(look_up(name, MINERS, "miner"), {}, f"option of {name}", metric=metric)


def parameters(name: str, options: Mapping[str, Any] | None = None) -> dict[str, Parameter]:
    """The options of the loss of this name, with their defaults; none where there is no such loss.

    Args:
        options: those that are given, by which a wrapper knows the losses within it.

    >>> parameters("contrastive")["margin"].default, parameters("arcface")["scale"].default
    (1.0, 64.0)
    """
    if name.startswith("pml:"):
        return resolve("nearkin.losses.borrowed.named:parameters")(name.removeprefix("pml:"))
    if name not in LOSSES:
        return {}
    loss, options = look_up(name, LOSSES, "loss"), options or {}
    found = parameters_of(loss)
    for inner in loss.names_within(options) if hasattr(loss, "names_within") else ():
        within = parameters(inner, options_within(inner, options))
        found |= {f"{inner}.{option}": p for option, p in within.items()}
    return found


def wants_features(name: str, options: Mapping[str, Any] | None = None) -> bool:
    """Whether a loss, or one within it, is built for the size of the trunk's features.

    >>> wants_features("hdml"), wants_features("combined", {"terms": "triplet + hdml"})
    (True, True)
    """
    if name not in LOSSES:
        return False
    loss = look_up(name, LOSSES, "loss")
    if hasattr(loss, "names_within"):
        options = options or {}
        inner = loss.names_within(options)
        return any(wants_features(n, options_within(n, options)) for n in inner)
    return "features" in parameters_of(loss)


def options_within(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options NAME.OPTION of a wrapper, as the loss within takes them."""
    start = f"{name}."
    return {k.removeprefix(start): v for k, v in options.items() if k.startswith(start)}


def __getattr__(name: str) -> Any:
    for target in (*LOSSES.values(), *OTHERS):
        if isinstance(target, str) and target.endswith(f":{name}"):
            return resolve(target)
    raise AttributeError(f"nearkin.losses has no {name!r}")


def __dir__() -> list[str]:
    classes = (t for t in (*LOSSES.values(), *OTHERS) if isinstance(t, str))
    return sorted({*globals(), *(target.rpartition(":")[2] for target in classes)})
