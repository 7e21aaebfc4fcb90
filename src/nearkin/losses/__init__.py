"""Losses: nn.Modules, called as `loss(embeddings, labels, indices_tuple=None)` -> a scalar.

A new loss is a class and a line of LOSSES. `pml:CLASS` names one of pytorch-metric-learning's.
"""

from collections.abc import Mapping
from inspect import Parameter
from typing import Any

from torch import nn

from nearkin.losses.borrowed import Rival, as_parameters, from_pml, plain_parameters
from nearkin.losses.classification import CrossEntropy as CrossEntropy
from nearkin.losses.classification import NormalisedCrossEntropy as NormalisedCrossEntropy
from nearkin.losses.fisher import FisherNCA as FisherNCA
from nearkin.losses.group import GroupLoss as GroupLoss
from nearkin.losses.lifted import LiftedStructure as LiftedStructure
from nearkin.losses.pairs import Contrastive as Contrastive
from nearkin.losses.proxy_graph import ProxyGML as ProxyGML
from nearkin.losses.refined import GraphRefinement as GraphRefinement
from nearkin.losses.triplets import RatioTriplet as RatioTriplet
from nearkin.losses.triplets import Triplet as Triplet
from nearkin.losses.tuples import NPair as NPair
from nearkin.losses.tuples import TupleRatio as TupleRatio
from nearkin.losses.tuples import TupleTriplet as TupleTriplet
from nearkin.losses.wrap.combined import Combined as Combined
from nearkin.losses.wrap.combined import names_of_terms
from nearkin.losses.wrap.gradient_cache import cached_backward as cached_backward
from nearkin.losses.wrap.memory import Memory as Memory
from nearkin.names import construct, look_up, parameters_of
from nearkin.registry import LOSSES, RIVALS


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
    loss = entry(name)
    if isinstance(loss, Rival):
        return loss.build(options, classes, dim)
    return construct(loss, options, f"option of {name}", classes=classes, dim=dim)


def entry(name: str) -> type[nn.Module] | Rival:
    """What stands for the name in LOSSES or RIVALS."""
    return look_up(name, {**LOSSES, **RIVALS}, "loss")


OFFERED = ("classes", "dim", "num_classes", "embedding_size", "descriptors_dim")
"""Arguments of losses that a run knows: as options they may only repeat its values."""


def parameters(name: str, options: Mapping[str, Any] | None = None) -> dict[str, Parameter]:
    """The options of the loss of this name, with their defaults; none where there is no such loss.

    >>> parameters("contrastive")["margin"].default, parameters("arcface")["scale"].default
    (1.0, 64.0)
    """
    if name.startswith("pml:"):
        return plain_parameters(name.removeprefix("pml:"))
    try:
        loss = entry(name)
    except ValueError:
        return {}
    if isinstance(loss, Rival):
        return {**plain_parameters(loss.loss), **as_parameters(loss.options)}
    found = parameters_of(loss)
    if loss is Combined:  # TERM.OPTION
        terms = str((options or {}).get("terms", found["terms"].default))
        for term in names_of_terms(terms):
            found |= {f"{term}.{option}": p for option, p in parameters(term).items()}
    return found
