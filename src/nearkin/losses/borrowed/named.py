"""`pml:CLASS`: any loss of pytorch-metric-learning (PML), by the name of its class.

The table is a literal, so that options are checked before PML is imported; a test holds it to PML's
constructors. PML's losses without labels, its wrappers and its bases are not among them: a recipe
has `memory` and `combined` for what the wrappers do.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter
from typing import Any

from torch import nn

from nearkin.extras import optional
from nearkin.losses.borrowed import bridge
from nearkin.losses.borrowed.bridge import PROXY_RATE, distance, errors_of
from nearkin.losses.inputs import above, at_least
from nearkin.names import fits, look_up, refuse_contradiction, unknown

REQUIRED = Parameter.empty
CLASSES: dict[str, Any] = {"num_classes": REQUIRED, "embedding_size": REQUIRED}

LOSSES: dict[str, dict[str, Any]] = {
    "AngularLoss": {"alpha": 40.0},
    "ArcFaceLoss": {**CLASSES, "margin": 28.6, "scale": 64.0},
    "CircleLoss": {"m": 0.4, "gamma": 80.0},
    "ContrastiveLoss": {"pos_margin": 0.0, "neg_margin": 1.0},
    "CosFaceLoss": {**CLASSES, "margin": 0.35, "scale": 64.0},
    "FastAPLoss": {"num_bins": 10},
    "GeneralizedLiftedStructureLoss": {"neg_margin": 1.0, "pos_margin": 0.0},
    "HistogramLoss": {"n_bins": None, "delta": None},
    "InstanceLoss": {"gamma": 64.0},
    "IntraPairVarianceLoss": {"pos_eps": 0.01, "neg_eps": 0.01},
    "LargeMarginSoftmaxLoss": {**CLASSES, "margin": 4, "scale": 1.0},
    "LiftedStructureLoss": {"neg_margin": 1.0, "pos_margin": 0.0},
    "MarginLoss": {"margin": 0.2, "nu": 0.0, "beta": 1.2, "learn_beta": False, "num_classes": None},
    "MultiSimilarityLoss": {"alpha": 2.0, "beta": 50.0, "base": 0.5},
    "NCALoss": {"softmax_scale": 1.0},
    "NPairsLoss": {},
    "NTXentLoss": {"temperature": 0.07},
    "NormalizedSoftmaxLoss": {**CLASSES, "temperature": 0.05},
    "P2SGradLoss": {"descriptors_dim": REQUIRED, "num_classes": REQUIRED},
    "PNPLoss": {"b": 2.0, "alpha": 1.0, "anneal": 0.01, "variant": "O"},
    "ProxyAnchorLoss": {**CLASSES, "margin": 0.1, "alpha": 32.0},
    "ProxyNCALoss": {**CLASSES, "softmax_scale": 1.0},
    "RankedListLoss": {
        "margin": REQUIRED,
        "Tn": REQUIRED,
        "imbalance": 0.5,
        "alpha": None,
        "Tp": 0.0,
    },
    "SignalToNoiseRatioContrastiveLoss": {"pos_margin": 0.0, "neg_margin": 1.0},
    "SmoothAPLoss": {"temperature": 0.01},
    "SoftTripleLoss": {
        **CLASSES,
        "centers_per_class": 10,
        "la": 20.0,
        "gamma": 0.1,
        "margin": 0.01,
        "weight_reg_weight": 0.0,
    },
    "SphereFaceLoss": {**CLASSES, "margin": 4, "scale": 1.0},
    "SubCenterArcFaceLoss": {**CLASSES, "margin": 28.6, "scale": 64.0, "sub_centers": 3},
    "SupConLoss": {"temperature": 0.1},
    "ThresholdConsistentMarginLoss": {
        "lambda_plus": 1.0,
        "lambda_minus": 1.0,
        "margin_plus": 0.9,
        "margin_minus": 0.5,
    },
    "TripletMarginLoss": {"margin": 0.05, "swap": False, "smooth_loss": False},
    "TupletMarginLoss": {"margin": 5.73, "scale": 64.0},
}
"""PML's losses and the options of each with their defaults."""

COMMON: dict[str, Any] = {"distance": "", "embedding_reg_weight": 0.0}
"""Options of every loss: a name of DISTANCES, "" for its own; weight of the mean squared length."""

POSITIVE = {"alpha", "gamma", "la", "num_bins", "scale", "softmax_scale", "sub_centers"}
POSITIVE |= {"temperature", "centers_per_class", "beta", "b", "anneal"}
NOT_NEGATIVE = {"margin", "nu", "embedding_reg_weight", "weight_reg_weight", "pos_eps", "neg_eps"}
"""Options that make no loss where they are not above 0, or are below it."""


class Borrowed(nn.Module):
    """A loss of PML by the name of its class, its options PML's own.

    Source: pytorch-metric-learning 2.x, which see. Judged by the cosine, as in its papers.

    Args:
        name: of PML's class, a key of LOSSES.
        options: plain arguments of its constructor; `distance`, a name of DISTANCES; and
            `embedding_reg_weight`, of the embeddings' mean squared length.
        classes, dim: for the losses that own a part for each class.
        rate: the learning rate that its parameters ask for.

    >>> Borrowed("CircleLoss", {"m": 0.3}).loss.m
    0.3
    """

    metric = "cosine"
    forward, rates = bridge.forward, bridge.rates

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any] | None = None,
        classes: int | None = None,
        dim: int | None = None,
        rate: float = PROXY_RATE,
    ):
        super().__init__()
        given = complete(name, options or {}, defaults(name), classes, dim)
        self.loss = build(name, given)
        self.miner, self.rate, self.classes = None, rate, given.get("num_classes")

    @property
    def references(self) -> bool:
        """Whether PML's loss compares the batch with references, as its own memory has it."""
        with optional():
            from pytorch_metric_learning.losses import CrossBatchMemory

        return type(self.loss).__name__ in CrossBatchMemory.supported_losses()


def defaults(name: str) -> dict[str, Any]:
    """Option -> default of PML's loss of this name."""
    return {**look_up(name, LOSSES, "loss of pytorch-metric-learning"), **COMMON}


def parameters(name: str) -> dict[str, Parameter]:
    """The options of PML's loss of this name, with their defaults; none where there is none."""
    found = defaults(name) if name in LOSSES else {}
    return {n: Parameter(n, Parameter.KEYWORD_ONLY, default=value) for n, value in found.items()}


def complete(
    name: str,
    options: Mapping[str, Any],
    known_options: Mapping[str, Any],
    classes: int | None,
    dim: int | None,
) -> dict[str, Any]:
    """What PML's class is built with: the options, checked, and what the run knows."""
    check_options(name, options, known_options)
    known = {"num_classes": classes, "embedding_size": dim, "descriptors_dim": dim}
    known = {n: value for n, value in known.items() if n in known_options and value is not None}
    refuse_contradiction(options, known, f"option of pml:{name}")
    given = {**options, **known}
    missing = [n for n, default in known_options.items() if default is REQUIRED and n not in given]
    if missing:
        raise ValueError(f"pml:{name} must be given {', '.join(missing)}")
    return given


def check_options(name: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse options that are unknown, not of their default's type, or out of bounds."""
    for option, value in options.items():
        if option not in defaults:
            raise unknown(option, defaults, f"option of pml:{name}")
        if not fits(value, defaults[option]):
            kind = type(defaults[option]).__name__
            raise ValueError(f"pml:{name} {option}: wanted a value of type {kind}, got {value!r}")
        if option in POSITIVE and value is not None:
            above(0, **{option: value})
        if option in NOT_NEGATIVE and value is not None:
            at_least(0, **{option: value})


def build(name: str, given: Mapping[str, Any]) -> nn.Module:
    """PML's loss; its distance and regularisers, which are objects there, from plain options."""
    with optional():
        from pytorch_metric_learning import losses, regularizers

    options = ", ".join(f"{option}={value}" for option, value in given.items())
    objects = dict(given)
    if objects.pop("distance", ""):
        objects["distance"] = distance(given["distance"])
    if "embedding_reg_weight" in given:
        objects["embedding_regularizer"] = regularizers.LpRegularizer(power=2)
    with errors_of(f"pml:{name} cannot be built with {options or 'its defaults'}"):
        if given.get("weight_reg_weight"):  # SoftTriple's tau
            centers = given.get("centers_per_class", LOSSES[name]["centers_per_class"])
            if centers < 2:
                raise ValueError(f"wanted 2 centers_per_class to draw together, got {centers}")
            objects["weight_regularizer"] = regularizers.SparseCentersRegularizer(
                given["num_classes"], centers
            )
        return getattr(losses, name)(**objects)
