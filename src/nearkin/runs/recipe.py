"""A Recipe is every choice that decides a run: one flat frozen value with a short hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from math import inf, isfinite
from typing import Any, NoReturn

from nearkin.names import Plain as Plain
from nearkin.names import fits, plain_number, refuse_no_part, refuse_no_text


class Options(dict[str, Plain]):
    """The options of a recipe: a dictionary that cannot be changed, and so can be hashed.

    >>> hash(Options(margin=1)) == hash(Options(margin=1.0))
    True
    >>> Options(margin=1)["margin"] = 2
    Traceback (most recent call last):
    TypeError: the options of a recipe cannot be changed; dataclasses.replace makes another recipe
    """

    def refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "the options of a recipe cannot be changed; dataclasses.replace makes another recipe"
        )

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = refuse  # type: ignore[assignment]
    setdefault = update = refuse  # type: ignore[assignment]

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type, tuple[dict]]:  # else a copy would be filled item by item
        return Options, (dict(self),)


@dataclass(frozen=True)
class Recipe:
    """Every choice that decides a run. Each field is a flag of `nearkin train`."""

    data: str = "mnist-5k"
    """data set: a name from `nearkin list`, or a folder of pictures, a .csv or an .npz file"""
    keep_images: float = 1.0
    """share of each training class's images that is used, in (0, 1], or how many, from 2 on;
    subsets are nested"""
    keep_classes: float = 1.0
    """share of the training classes that is used, in (0, 1], or how many, from 2 on; subsets are
    nested"""
    validate: bool = False
    """hold out every fifth training class for validation, from another one for every seed (where
    training and test share classes, as MNIST's do: the last sixth of each)"""
    validate_every: int = 5
    """with validate: hold out every second training class (2), third (3), ... in place of every
    fifth; with 2, as many classes validate as train, as it is with CUB's and Cars's test classes;
    where training and test share classes, one half of each class's images (2), one third (3), ...
    """
    trial: bool = False
    """only choose settings: examine the validation classes alone, and keep no embeddings; goes with
    validate"""

    backbone: str = "network"
    """network (of the n-tuple report, for small pictures; on features it means linear), linear, mlp
    or identity (on features), lite0, lite2 or timm:NAME"""
    backbone_options: Mapping[str, Plain] = field(default_factory=dict)
    """key=value ... for the backbone's constructor"""
    dim: int = 64
    """size of the embedding"""
    start: str = ""
    """checkpoint whose backbone is the start, its last layer new unless epochs are 0 (transfer)"""
    freeze: bool = False
    """train the last layer alone"""
    tail: int = 0
    """of a pretrained network only the last so many stages and the head learn, from feature maps
    that are computed once and stored: for machines without a GPU; 0: all of it"""
    tail_crops: int = 4
    """with tail: augmented crops of each training picture whose maps are stored"""
    tail_bits: int = 16
    """with tail: bits of a stored number: 32, 16 or 8"""

    head_start: str = "orthogonal"
    """how the last layer (of mlp: both) starts: orthogonal, or as a closed form of the training
    images' features, in whose coordinates it then learns: whitened, pca-whitened, lda, ... (see
    `nearkin list`); with epochs 0 the closed form itself"""
    head_power: float = 1.0
    """power p of the features before it, x -> sign(x) |x|^p: 0.5 for averages of ReLU outputs"""
    head_shrinkage: float = 1.0
    """of the closed form: share of the features' mean variance that is added to all variances"""
    head_options: Mapping[str, Plain] = field(default_factory=dict)
    """key=value ... for the closed form: shrinkage=oas or ledoit-wolf, neighbours of lfda, ..."""
    head_dropout: float = 0.0
    """share of the last layer's (whitened) inputs that are left out of each training step"""
    start_decay: float = 0.0
    """decay of the backbone's weights towards their start, as weight_decay of adamw is towards 0"""
    average: float = 0.0
    """evaluate and keep a running average of the backbone's weights, which a step changes by
    1 - average; 0: the weights themselves"""

    loss: str = "ratio-triplet"
    """a name from `nearkin list`, or pml:CLASS of pytorch-metric-learning"""
    loss_options: Mapping[str, Plain] = field(default_factory=dict)
    """key=value ... for the loss's constructor; for a term of combined, TERM.OPTION=value"""
    loss_start: str = "random"
    """how the loss's proxies or classifier start: random, or means: at the means of the classes'
    embeddings, as the head makes them at its start"""
    miner: str = ""
    """pml:CLASS of pytorch-metric-learning, or none"""
    memory: int = 0
    """past embeddings that serve as references (cross-batch memory); 0: the batch alone"""
    chunk: int = 0
    """embed a large batch in pieces of this size, with equal gradients; 0: whole"""

    sampler: str = "classes"
    """random, classes (P x K), tuples, triplets or pairs"""
    batch: int = 128
    """images a batch"""
    per_class: int = 4
    """images of each class in a batch (K of P x K)"""
    augment: str = "none"
    """none, shift, affine or crop-flip"""
    size: int = 0
    """side of the pictures in pixels; 0: small sets as they are, photographs at 128"""

    epochs: int = 4
    """passes over the training images"""
    steps: int = 0
    """steps of the whole run, cut into `epochs` equal parts; 0: an epoch is a pass over the data"""
    evaluate_every: int = 1
    """epochs from one evaluation to the next; the last epoch is always evaluated"""
    patience: int = 0
    """validations in a row that find the run no better, after which it stops (wants validate); 0:
    it goes on to its last epoch"""
    optimizer: str = "adam"
    """adam, adamw, sgd, rmsprop or radam"""
    lr: float = 1e-3
    """learning rate"""
    loss_lr: float = 0.0
    """learning rate of the loss's own proxies or classifiers; 0 takes what the loss asks for"""
    backbone_lr: float = 0.0
    """learning rate of all but the last layer of the backbone; 0 takes lr"""
    weight_decay: float = 0.0
    """of every parameter, as the optimiser defines it"""
    momentum: float = 0.9
    """of sgd and rmsprop"""
    eps: float = 0.0
    """of adam, adamw, rmsprop and radam; 0 takes the optimiser's own"""
    schedule: str = "constant"
    """constant, cosine, or step (a tenth at 40 % and again at 80 % of the run)"""
    warmup: int = 0
    """steps over which the learning rate grows from 0 to lr"""
    head_first: int = 0
    """epochs at the start in which only the last layer and the loss learn"""
    clip: float = 0.0
    """largest norm of the backbone's gradient (the loss's own is left as it is); 0: no clipping"""

    metric: str = ""
    """what near means in evaluation: cosine, inner or euclidean; by default as the loss has it"""
    refine: str = ""
    """also refine the test images by the loss's graph layers, each among its neighbours: gallery
    or reciprocal; by default the backbone alone embeds"""
    precision: str = "float32"
    """float32 or bf16 (autocast)"""
    seed: int = 0
    """of weights, batches and augmentation"""

    def __post_init__(self) -> None:
        # a default needs no look, but no options are to become Options too
        given = {n: v for n, d in DEFAULTS.items() if (v := getattr(self, n)) is not d or v == {}}
        for name, value in given.items():
            default = DEFAULTS[name]
            if value is not plain_number(value):  # as a search over arrays of NumPy hands it over
                given[name] = value = plain_number(value)
                object.__setattr__(self, name, value)
            if isinstance(default, dict):
                if isinstance(value, Mapping):
                    value = {key: plain_number(each) for key, each in value.items()}
                plain = isinstance(value, Mapping) and all(
                    isinstance(v, Plain) and (not isinstance(v, float) or isfinite(v))
                    for v in value.values()
                )
                if not plain:
                    raise ValueError(f"{name}: wanted options of plain values, got {value!r}")
                refuse_no_text(name, " ".join(f"{key}={each}" for key, each in value.items()))
                object.__setattr__(self, name, Options(value))
            elif not fits(value, default):
                wanted = type(default).__name__
                raise ValueError(f"{name}: wanted a value of type {wanted}, got {value!r}")
            elif isinstance(default, float):
                object.__setattr__(self, name, float(value))  # 1 and 1.0 are one recipe
                if not 0 <= value < inf:
                    raise ValueError(f"{name} must be 0 or more, and finite, got {value}")
            elif isinstance(default, str):
                refuse_no_text(name, value)
        for name in ("keep_images", "keep_classes"):
            refuse_no_part(name, getattr(self, name))
        if not self.head_power > 0:
            raise ValueError(f"head_power must be above 0, got {self.head_power}")
        for name in ("head_dropout", "average"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("dim", "batch", "per_class", "evaluate_every", "tail_crops"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        counts = ("epochs", "steps", "size", "memory", "chunk", "warmup", "head_first", "seed")
        counts += ("patience", "tail")
        for name in counts:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.size == 1:  # torch resizes nothing to one pixel
            raise ValueError("size must be 2 pixels or more, or 0, got 1")
        if self.validate_every < 2:
            raise ValueError(f"validate_every must be 2 or more, got {self.validate_every}")
        if self.validate_every != DEFAULTS["validate_every"] and not self.validate:
            raise ValueError("validate_every goes with validate: it says which classes validate")
        for name, value in given.items():
            if type(DEFAULTS[name]) is int and name != "seed" and value > MOST:
                raise ValueError(f"{name} must be at most {MOST:,}, got {value}")
        if self.patience and not self.validate:
            raise ValueError("patience goes with validate: it counts validations without a gain")
        if self.trial and not self.validate:
            raise ValueError("trial goes with validate: it examines the validation classes alone")
        for name in ("tail_crops", "tail_bits") if not self.tail else ():
            if getattr(self, name) != DEFAULTS[name]:
                raise ValueError(f"{name} goes with tail: it says which feature maps are stored")
        if self.tail_bits not in (32, 16, 8):
            raise ValueError(f"tail_bits must be 32, 16 or 8, got {self.tail_bits}")
        if self.tail and self.chunk:
            raise ValueError("chunk and tail do not go together: a tail takes its batches whole")
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2 to the 63rd, got {self.seed}")

    @cached_property
    def hash(self) -> str:
        """12 hex digits of `canonical(self)`: the same wherever the data lie, and however options
        are written.

        Fields at their defaults are no part of it, so that a new field, as long as its default is
        what was done before, renames no stored row.
        """
        from nearkin.runs.identity import hash_of

        return hash_of(self)

    def plain(self) -> dict[str, Any]:
        """Every field as plain data: strings, numbers and dictionaries."""
        found = {name: getattr(self, name) for name in DEFAULTS}
        return {k: dict(v) if isinstance(v, Options) else v for k, v in found.items()}

    def changes(self) -> dict[str, Any]:
        """The fields that differ from the defaults, as plain data."""
        return {name: value for name, value in self.plain().items() if value != DEFAULTS[name]}


MOST = 10**9
"""The most that a count may be; nothing that a machine can do comes near it."""

DEFAULTS = {
    f.name: f.default if f.default is not MISSING else f.default_factory()  # type: ignore[misc]
    for f in fields(Recipe)
}
"""Of every field. They never change their meaning: stored rows are found by what differs."""
