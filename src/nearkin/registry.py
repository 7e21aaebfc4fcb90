"""The names that people type, and what stands behind each: "module:Name", imported on first use.

So a name can be listed and checked before anything heavy is imported. `nearkin.names.look_up` reads
these tables. An entry of one's own joins by assignment, as a string or as the object itself:

    nearkin.models.BACKBONES["mine"] = "my_package.networks:MyNetwork"

Worker processes know entries that are strings; objects serve within one process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Registry = dict[str, Any]

DATASETS: Registry = {  # (Request) -> Splits; the last ones take a path after a colon
    "mnist-5k": "nearkin.data.sets.digits:mnist_5k",
    "mnist": "nearkin.data.sets.digits:mnist",
    "fashion-mnist": "nearkin.data.sets.digits:fashion_mnist",
    "omniglot": "nearkin.data.sets.omniglot:omniglot",
    "cub": "nearkin.data.sets.benchmarks:load_cub",
    "cars": "nearkin.data.sets.benchmarks:load_cars",
    "sop": "nearkin.data.sets.benchmarks:load_sop",
    "inshop": "nearkin.data.sets.benchmarks:load_inshop",
    "folder": "nearkin.data.sets.folders:folder",
    "nested": "nearkin.data.sets.folders:nested",
    "parent": "nearkin.data.sets.folders:parent",
    "top": "nearkin.data.sets.folders:top",
    "csv": "nearkin.data.sets.tables:table",
    "tars": "nearkin.data.sets.tars:tars",
    "features": "nearkin.data.sets.features:features",
}
BACKBONES: Registry = {  # (input_shape, dim, **options) -> Backbone; timm takes a name too
    "network": "nearkin.models.network:small_network",
    "layers": "nearkin.models.network:layered",
    "linear": "nearkin.models.features:linear",
    "mlp": "nearkin.models.features:mlp",
    "identity": "nearkin.models.features:identity",
    "lite0": "nearkin.models.pretrained:lite0",
    "lite2": "nearkin.models.pretrained:lite2",
    "timm": "nearkin.models.pretrained:timm_model",
}
FORMS: Registry = {  # (set, dim, **options) -> LinearMap: the closed forms
    "power": "nearkin.closed.forms:power",
    "pca": "nearkin.closed.forms:pca",
    "pca-whitened": "nearkin.closed.forms:pca_whitened",
    "whitened": "nearkin.closed.forms:whitened",
    "lda": "nearkin.closed.forms:lda",
    "plda": "nearkin.closed.forms:plda",
    "kissme": "nearkin.closed.forms:kissme",
    "regression": "nearkin.closed.forms:regression",
    "lfda": "nearkin.closed.neighbours:lfda",
    "nca": "nearkin.closed.neighbours:nca",
}
LOSSES: Registry = {  # nn.Module of the options, and of classes and dim where it names them
    "arcface": "nearkin.losses.borrowed.rivals:ArcFace",
    "clustering": "nearkin.losses.clustering:Clustering",
    "combined": "nearkin.losses.wrap.combined:Combined",
    "contrastive": "nearkin.losses.pairs:Contrastive",
    "cross-entropy": "nearkin.losses.classification:CrossEntropy",
    "fisher-nca": "nearkin.losses.fisher:FisherNCA",
    "graph-refinement": "nearkin.losses.refinement_options:refinement_from_options",
    "group": "nearkin.losses.group:GroupLoss",
    "hdc": "nearkin.losses.hdc:HDC",
    "hdml": "nearkin.losses.hdml:HDML",
    "hierarchical-triplet": "nearkin.losses.hierarchical:HierarchicalTriplet",
    "lifted-structure": "nearkin.losses.lifted:LiftedStructure",
    "margin": "nearkin.losses.borrowed.rivals:Margin",
    "matryoshka": "nearkin.losses.wrap.matryoshka:Matryoshka",
    "multi-similarity": "nearkin.losses.borrowed.rivals:MultiSimilarity",
    "n-pair": "nearkin.losses.tuples:NPair",
    "normalised-cross-entropy": "nearkin.losses.classification:NormalisedCrossEntropy",
    "pml-contrastive": "nearkin.losses.borrowed.rivals:PMLContrastive",
    "pml-n-pair": "nearkin.losses.borrowed.rivals:PMLNPair",
    "proxy-anchor": "nearkin.losses.borrowed.rivals:ProxyAnchor",
    "proxy-gml": "nearkin.losses.proxy_graph:ProxyGML",
    "proxy-nca": "nearkin.losses.borrowed.rivals:ProxyNCA",
    "ratio-triplet": "nearkin.losses.triplets:RatioTriplet",
    "semi-hard-triplet": "nearkin.losses.borrowed.rivals:SemiHardTriplet",
    "soft-triple": "nearkin.losses.borrowed.rivals:SoftTriple",
    "supcon": "nearkin.losses.borrowed.rivals:SupCon",
    "triplet": "nearkin.losses.triplets:Triplet",
    "tuple-ratio": "nearkin.losses.tuples:TupleRatio",
    "tuple-triplet": "nearkin.losses.tuples:TupleTriplet",
}
MINERS: Registry = {  # (embeddings, labels) -> indices; pml:CLASS is pytorch-metric-learning's
    "all": "nearkin.losses.mining:AllPairs",
    "spanning-tree": "nearkin.losses.mining:SpanningTree",
    "pml:AngularMiner": "pytorch_metric_learning.miners:AngularMiner",
    "pml:BatchEasyHardMiner": "pytorch_metric_learning.miners:BatchEasyHardMiner",
    "pml:BatchHardMiner": "pytorch_metric_learning.miners:BatchHardMiner",
    "pml:DistanceWeightedMiner": "pytorch_metric_learning.miners:DistanceWeightedMiner",
    "pml:HDCMiner": "pytorch_metric_learning.miners:HDCMiner",
    "pml:MultiSimilarityMiner": "pytorch_metric_learning.miners:MultiSimilarityMiner",
    "pml:PairMarginMiner": "pytorch_metric_learning.miners:PairMarginMiner",
    "pml:TripletMarginMiner": "pytorch_metric_learning.miners:TripletMarginMiner",
    "pml:UniformHistogramMiner": "pytorch_metric_learning.miners:UniformHistogramMiner",
}
BUILDERS: Registry = {  # (embeddings, labels=None) -> graph
    "full": "nearkin.graphs.build:full",
    "knn": "nearkin.graphs.build:knn",
    "mutual-knn": "nearkin.graphs.build:mutual_knn",
    "threshold": "nearkin.graphs.build:threshold",
    "top-ratio": "nearkin.graphs.build:top_ratio",
    "label-guided": "nearkin.graphs.build:label_guided",
    "learned": "nearkin.graphs.build:Learned",
    "random": "nearkin.graphs.build:random",
}
LAYERS: Registry = {  # (nodes, graph, edges=None) -> (nodes, edges)
    "dot-product": "nearkin.graphs.attention:DotProduct",
    "gat": "nearkin.graphs.attention:GAT",
    "gatv2": "nearkin.graphs.attention:GATv2",
    "graph-network": "nearkin.graphs.graph_network:GraphNetwork",
    "mean": "nearkin.graphs.attention:Mean",
    "no-edges": "nearkin.graphs.attention:NoEdges",
}
SAMPLERS: Registry = {  # (labels, batch, per_class, seed, epoch) -> indices (steps, batch)
    "random": "nearkin.data.samplers:random",
    "classes": "nearkin.data.samplers:classes",
    "tuples": "nearkin.data.samplers:tuples",
    "triplets": "nearkin.data.samplers:triplets",
    "pairs": "nearkin.data.samplers:pairs",
    "neighbours": "nearkin.data.neighbours:neighbours",
    "streams": "nearkin.data.streams:streams",
}
AUGMENTS: Registry = {  # (pictures, size, generator, part=None) -> pictures
    "none": "nearkin.data.transforms:centred",
    "shift": "nearkin.data.transforms:shift",
    "affine": "nearkin.data.transforms:affine",
    "crop-flip": "nearkin.data.transforms:crop_flip",
}
OPTIMIZERS: Registry = {
    "adam": "torch.optim:Adam",
    "adamw": "torch.optim:AdamW",
    "radam": "torch.optim:RAdam",
    "rmsprop": "torch.optim:RMSprop",
    "sgd": "torch.optim:SGD",
}
SCHEDULES: Registry = {  # (share of the run that is done) -> factor of the learning rates
    "constant": "nearkin.runs.schedules:constant",
    "cosine": "nearkin.runs.schedules:cosine",
    "step": "nearkin.runs.schedules:step",
}
PRECISIONS: Registry = {
    "float32": "32-true",
    "bf16": "bf16-mixed",
}  # as Lightning Fabric names them
METRICS = ("cosine", "inner", "euclidean")  # of an embedding space
SOURCES: Registry = {  # of the neighbours by which test images are refined
    "gallery": "nearkin.graphs.rerank:nearest",
    "reciprocal": "nearkin.graphs.rerank:reciprocal",
}
STUDIES: Registry = {
    "attention": "nearkin.studies.graphlab.attention:STUDY",
    "closed-forms": "nearkin.studies.heads.closed_forms:STUDY",
    "edges": "nearkin.studies.graphlab.edges:STUDY",
    "features-vs-fine-tuning": "nearkin.studies.photographs.features_vs_fine_tuning:STUDY",
    "fine-tuning": "nearkin.studies.photographs.fine_tuning:STUDY",
    "graph": "nearkin.studies.graphlab.graph:STUDY",
    "graph-gain": "nearkin.studies.graphlab.gain:STUDY",
    "heads": "nearkin.studies.heads.trained:STUDY",
    "proxygml-ablation": "nearkin.studies.proxygml.ablation:STUDY",
    "proxygml-cost": "nearkin.studies.proxygml.cost:STUDY",
    "proxygml-curve": "nearkin.studies.proxygml.curve:STUDY",
    "proxygml-proxies": "nearkin.studies.proxygml.proxies:STUDY",
    "proxygml-ratio": "nearkin.studies.proxygml.ratio:STUDY",
    "rank-collapse": "nearkin.studies.graphlab.rank_collapse:STUDY",
    "rivals": "nearkin.studies.proxygml.rivals:STUDY",
    "samples": "nearkin.studies.photographs.samples:STUDY",
    "starts": "nearkin.studies.heads.starts:STUDY",
    "stop": "nearkin.studies.heads.stop:STUDY",
    "tail": "nearkin.studies.photographs.tail:STUDY",
    "toolkit": "nearkin.studies.toolkit.losses:STUDY",
    "transfer": "nearkin.studies.photographs.transfer:STUDY",
}


def tables() -> dict[str, Registry]:
    """Every table above, by its name."""
    return {k: v for k, v in globals().items() if k.isupper() and isinstance(v, dict)}


def entries() -> dict[str, Registry]:
    """The entries of every table that worker processes can be told: the strings."""
    return {
        name: {key: entry for key, entry in table.items() if isinstance(entry, str)}
        for name, table in tables().items()
    }


def adopt(told: Mapping[str, Registry]) -> None:
    """Add the entries of the process that started this one."""
    for name, table in tables().items():
        table.update(told.get(name, {}))


def refuse_objects(values: Iterable[object]) -> None:
    """A ValueError where a value of a recipe names an entry that worker processes cannot be told.

    >>> refuse_objects(["triplet", 64, "folder:x"])
    """
    texts = (value.partition(":")[0] for value in values if isinstance(value, str))
    words = {word for text in texts for word in re.findall(r"[\w-]+", text)}
    for name, table in tables().items():
        for key in sorted(words & set(table)):
            if not isinstance(table[key], str):
                raise ValueError(
                    f"{name}[{key!r}] is an object, which worker processes do not have: wanted "
                    '"module:Name" there, or one job at a time'
                )
