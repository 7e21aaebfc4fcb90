"""The door to pytorch-metric-learning (PML), and the settings under which we meet its losses.

`pml:CLASS` names any of its losses or miners. The constants are those that the studies
compare, each with the settings of its paper, its miner and the learning rate of its proxies.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nearkin.losses.inputs import Mined, checked_labels
from nearkin.names import TOO_LARGE, Plain, fits, look_up, refuse_contradiction, unknown
from nearkin.tensors import at_least_float32

PROXY_RATE = 0.01
"""Learning rate of proxies and classifiers of `pml:CLASS`, as in PML's own examples."""


@dataclass(frozen=True)
class Rival:
    """A method of another paper: a loss of PML, its options, its miner, and its proxies' rate.

    rate: the learning rate that its proxies, classifiers or margins ask for; 0: it has none.
    """

    loss: str
    options: Mapping[str, Plain] = field(default_factory=dict)
    miner: str = ""
    miner_options: Mapping[str, Plain] = field(default_factory=dict)
    rate: float = 0.0
    source: str = ""

    def build(self, options: Mapping[str, Plain], classes: int | None, dim: int | None) -> Borrowed:
        """The loss under these settings; options of the caller go first."""
        loss = borrow("losses", self.loss, {**self.options, **options}, classes, dim)
        miner = borrow("miners", self.miner, self.miner_options) if self.miner else None
        return Borrowed(loss, miner, self.rate, options.get("num_classes", classes))


ARCFACE = Rival(
    "ArcFaceLoss",
    {"margin": 28.6, "scale": 64.0},  # degrees: 0.5 rad
    rate=PROXY_RATE,
    source="Deng et al., ArcFace, CVPR 2019",
)
MARGIN = Rival(
    "MarginLoss",
    {"margin": 0.2, "beta": 1.2, "nu": 0.0, "learn_beta": True},
    miner="DistanceWeightedMiner",
    miner_options={"cutoff": 0.5, "nonzero_loss_cutoff": 1.4},
    rate=0.1,  # of the boundary of each class
    source="Wu et al., Sampling matters in deep embedding learning, ICCV 2017",
)
MULTI_SIMILARITY = Rival(
    "MultiSimilarityLoss",
    {"alpha": 2.0, "beta": 50.0, "base": 0.5},
    miner="MultiSimilarityMiner",
    miner_options={"epsilon": 0.1},
    source="Wang et al., Multi-similarity loss with general pair weighting, CVPR 2019; "
    "base 0.5 as in the released code, 1 in print",
)
PML_CONTRASTIVE = Rival(
    "ContrastiveLoss",
    {"pos_margin": 0.0, "neg_margin": 1.0},
    source="Hadsell et al., CVPR 2006; PML's form: unit embeddings, not squared",
)
PML_N_PAIR = Rival(
    "NPairsLoss",
    {"distance": "dot", "embedding_reg_weight": 0.001},
    source="Sohn, Improved deep metric learning with multi-class N-pair loss objective, "
    "NIPS 2016; raw embeddings, L2 weight of TensorFlow's npairs_loss (0.002 x 1/2)",
)
PROXY_ANCHOR = Rival(
    "ProxyAnchorLoss",
    {"margin": 0.1, "alpha": 32.0},
    rate=0.01,  # 100 times the network's 1e-4
    source="Kim et al., Proxy anchor loss for deep metric learning, CVPR 2020",
)
PROXY_NCA = Rival(
    "ProxyNCALoss",
    {"softmax_scale": 8.0},
    rate=0.01,
    source="Movshovitz-Attias et al., No fuss distance metric learning using proxies, "
    "ICCV 2017; scale (proxies of length 8) and rate (111 times the network's) as in "
    "dichotomies/proxy-nca",
)
SEMI_HARD_TRIPLET = Rival(
    "TripletMarginLoss",
    {"margin": 0.2, "distance": "squared"},
    miner="TripletMarginMiner",
    miner_options={"margin": 0.2, "type_of_triplets": "semihard", "distance": "squared"},
    source="Schroff et al., FaceNet, CVPR 2015",
)
SOFT_TRIPLE = Rival(
    "SoftTripleLoss",
    {
        "centers_per_class": 10,
        "la": 20.0,
        "gamma": 0.1,
        "margin": 0.01,
        "weight_reg_weight": 0.2,
    },
    rate=0.01,
    source="Qian et al., SoftTriple loss, ICCV 2019; tau is weight_reg_weight",
)
SUPCON = Rival(
    "SupConLoss",
    {"temperature": 0.1},
    source="Khosla et al., Supervised contrastive learning, NeurIPS 2020",
)


class Borrowed(nn.Module):
    """A loss of PML, with its miner where it has one, under our contract.

    In float32 under bf16 autocast, as our own losses; labels that it has no class for are refused.
    classes: how many it was built for, where it has a part for each.
    """

    def __init__(self, loss: nn.Module, miner: nn.Module | None, rate: float, classes: Any) -> None:
        super().__init__()
        self.loss, self.miner, self.rate = loss, miner, rate
        self.classes = classes if "num_classes" in plain_options(type(loss)) else None

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        labels = checked_labels(labels, embeddings, self.classes)
        name = f"pml:{type(self.loss).__name__}"
        with torch.autocast(embeddings.device.type, enabled=False), errors_of(name):
            embeddings = at_least_float32(embeddings)
            if self.miner is not None and indices_tuple is None:
                indices_tuple = self.miner(embeddings, labels, ref_emb, ref_labels)
            return self.loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)

    def rates(self) -> dict[str, float]:
        """Proxies, classifiers and learnt margins, where there are any."""
        return {"loss.": self.rate} if any(True for _ in self.loss.parameters()) else {}


def from_pml(
    name: str, options: Mapping[str, Plain], classes: int | None, dim: int | None
) -> Borrowed:
    """PML's loss of this name (`TripletMarginLoss`), its defaults where no option is given.

    Options are its plain constructor arguments, `distance` (one of DISTANCES), and
    `embedding_reg_weight` (of the embeddings' mean squared length).
    """
    loss = borrow("losses", name, options, classes, dim)
    return Borrowed(loss, None, PROXY_RATE, options.get("num_classes", classes))


def miner_from_pml(name: str) -> nn.Module:
    """PML's miner `pml:CLASS`, with its defaults."""
    return borrow("miners", name.removeprefix("pml:"), {})


def borrow(
    kind: str,
    name: str,
    options: Mapping[str, Plain],
    classes: int | None = None,
    dim: int | None = None,
) -> nn.Module:
    """An object of pytorch_metric_learning.KIND ("losses" or "miners"), its options checked.

    The number of training classes and the embedding size reach the constructors that want them.
    """
    from pytorch_metric_learning import distances, regularizers

    if name in UNFIT:
        raise ValueError(f"pml:{name} does not run here: {UNFIT[name]}")
    build = look_up(name, offered(kind), f"{kind} of pytorch-metric-learning")
    defaults = plain_options(build)
    check_options(name, options, defaults)
    known = {"num_classes": classes, "embedding_size": dim, "descriptors_dim": dim}
    known = {n: value for n, value in known.items() if n in defaults and value is not None}
    refuse_contradiction(options, known, f"option of pml:{name}")
    given: dict[str, Any] = {**options, **known}
    missing = [n for n, default in defaults.items() if default is REQUIRED and n not in given]
    if missing:
        raise ValueError(f"pml:{name} must be given {', '.join(missing)}")
    if "distance" in given:
        metric, arguments = look_up(given["distance"], DISTANCES, "distance")
        given["distance"] = getattr(distances, metric)(**arguments)
    if "embedding_reg_weight" in given:
        given["embedding_regularizer"] = regularizers.LpRegularizer(power=2)
    said = ", ".join(f"{option}={value}" for option, value in options.items())
    with errors_of(f"pml:{name} cannot be built with {said or 'its defaults'}"):
        if "weight_reg_weight" in given:
            centers = given.get("centers_per_class", defaults["centers_per_class"])
            if centers < 2:
                raise ValueError(
                    f"wanted 2 centers_per_class or more to draw together, got {centers}"
                )
            given["weight_regularizer"] = regularizers.SparseCentersRegularizer(
                given["num_classes"], centers
            )
        return build(**given)


def offered(kind: str) -> dict[str, Any]:
    """PML's "losses" or "miners" that run here, by name."""
    from pytorch_metric_learning import losses, miners

    module, base = {
        "losses": (losses, losses.BaseMetricLossFunction),
        "miners": (miners, miners.BaseMiner),
    }[kind]
    return {
        name: build
        for name, build in vars(module).items()
        if inspect.isclass(build) and issubclass(build, base) and name not in UNFIT
    }


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """What goes wrong inside PML is said in one line, after this name; but not a lack of memory."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if re.search(TOO_LARGE, str(error)):
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name}: {said}") from error


UNFIT: dict[str, str] = {
    "BaseLossWrapper": "it is the base of others",
    "BaseMetricLossFunction": "it is the base of others",
    "BaseMiner": "it is the base of others",
    "CrossBatchMemory": "it goes around a loss; take the loss, and memory=SIZE of the recipe",
    "DynamicSoftMarginLoss": "it goes back through the graph of the step before, which is gone",
    "EmbeddingRegularizerMixin": "it is the base of others",
    "EmbeddingsAlreadyPackagedAsTriplets": "take the sampler triplets, which says them to the loss",
    "GenericPairLoss": "it is the base of others",
    "ManifoldLoss": "it takes no labels",
    "MultipleLosses": "it goes around losses; take combined",
    "SelfSupervisedLoss": "it takes no labels",
    "VICRegLoss": "it takes no labels",
    "WeightRegularizerMixin": "it is the base of others",
}
"""Classes of PML's losses and miners that are not offered, and why."""


DISTANCES: dict[str, tuple[str, dict[str, Any]]] = {
    "cosine": ("CosineSimilarity", {}),
    "dot": ("DotProductSimilarity", {"normalize_embeddings": False}),
    "euclidean": ("LpDistance", {}),
    "squared": ("LpDistance", {"power": 2}),
}
"""Name -> PML's class and its arguments; all but "dot" are between unit embeddings."""

REQUIRED = inspect.Parameter.empty
REGULARISED = {"embedding_reg_weight", "weight_reg_weight"}
"""Options that bring a regulariser with them, whatever their value."""
OBJECTS = {"collect_stats", "embedding_regularizer", "mat_based_loss", "reducer"}
OBJECTS |= {"triplets_per_anchor", "weight_init_func", "weight_regularizer"}
"""Arguments of PML's constructors that a recipe cannot hold, or that its classes set themselves."""


def plain_options(build: type) -> dict[str, Any]:
    """Option -> default of a class of PML, whose constructors hand `**kwargs` up to their bases.

    A weight regulariser is SoftTriple's (its tau): it alone has centres to bring together.
    """
    defaults: dict[str, Any] = {}
    for ancestor in build.__mro__:
        if "__init__" in vars(ancestor) and ancestor.__module__.startswith("pytorch_metric"):
            for name, parameter in inspect.signature(ancestor.__init__).parameters.items():
                named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
                if named and name not in {"self", *OBJECTS}:
                    defaults.setdefault(name, parameter.default)
    if "centers_per_class" not in defaults:
        defaults.pop("weight_reg_weight", None)
    return defaults


def plain_parameters(name: str) -> dict[str, inspect.Parameter]:
    """The plain options of PML's loss of this name, with their defaults; none where there is none.

    A weight of a regulariser has no default: there is a regulariser only where a weight is given.
    """
    build = offered("losses").get(name)
    found = as_parameters(plain_options(build) if build else {})
    for weight in REGULARISED & found.keys():
        found[weight] = found[weight].replace(default=REQUIRED, annotation=float)
    return found


def as_parameters(defaults: Mapping[str, Any]) -> dict[str, inspect.Parameter]:
    """Keyword parameters with these defaults."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    return {n: inspect.Parameter(n, keyword, default=value) for n, value in defaults.items()}


def check_options(name: str, options: Mapping[str, Plain], defaults: Mapping[str, Any]) -> None:
    """Options must be known and of their defaults' type; PML writes many floats as integers."""
    for option, value in options.items():
        if option not in defaults:
            raise unknown(option, defaults, f"option of pml:{name}")
        default = defaults[option]
        default = float(default) if type(default) is int else default
        if not fits(value, default):
            kind = type(default).__name__
            raise ValueError(f"pml:{name} {option}: wanted a value of type {kind}, got {value!r}")
