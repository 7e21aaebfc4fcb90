"""What other libraries call by which name: the tables of the pages on migration."""

from __future__ import annotations

import inspect
from importlib import import_module

from nearkin import losses
from nearkin.names import parameters_of, resolve
from nearkin.registry import FORMS

PML = {
    "ArcFaceLoss": "arcface",
    "ContrastiveLoss": "contrastive",
    "CrossBatchMemory": "Memory",
    "LiftedStructureLoss": "lifted-structure",
    "GeneralizedLiftedStructureLoss": "lifted-structure",
    "MarginLoss": "margin",
    "MultiSimilarityLoss": "multi-similarity",
    "NCALoss": "tuple-ratio",
    "NormalizedSoftmaxLoss": "normalised-cross-entropy",
    "NPairsLoss": "n-pair",
    "NTXentLoss": "supcon",
    "ProxyAnchorLoss": "proxy-anchor",
    "ProxyNCALoss": "proxy-nca",
    "SoftTripleLoss": "soft-triple",
    "SupConLoss": "supcon",
    "TripletMarginLoss": "triplet",
}
"""Class of pytorch-metric-learning 2 -> our name, or a class of `nearkin.losses`."""
PML_REST = {
    "miners.MultiSimilarityMiner": "`--miner pml:MultiSimilarityMiner`",
    "samplers.MPerClassSampler": '`nk.data.Batches(labels, batch, "classes", per_class=m)`',
    "utils.accuracy_calculator.AccuracyCalculator": "`nk.evaluate`, `nk.Accumulator`",
    "utils.inference.InferenceModel": "`nk.Model` with `nk.Index`",
    "trainers.MetricLossOnly": "`nk.fit`",
    "testers.GlobalEmbeddingSpaceTester": "`nk.evaluate`",
}
METRIC_LEARN = {
    "LFDA": "lfda",
    "NCA": "nca",
    "RCA_Supervised": "whitened",
    "Covariance": "pca-whitened",
}
"""Class of metric-learn -> our closed form."""
NOTES = {
    "ContrastiveLoss": "squared springs here, linear ones there; `pml-contrastive` is theirs",
    "NPairsLoss": "tuples of two a class; `pml-n-pair` is theirs",
    "NCALoss": "distances are not squared here",
    "NTXentLoss": "their SupCon form",
    "TripletMarginLoss": "all triplets, by counting, and no reducer",
    "NormalizedSoftmaxLoss": "",
    "CrossBatchMemory": "wraps any loss of ours that takes references",
    "GeneralizedLiftedStructureLoss": "the form of the paper is ours",
    "RCA_Supervised": "classes in place of chunks; both are of the inverse scatter within",
    "Covariance": "of the total scatter",
    "LFDA": "",
    "NCA": "",
}


def defaults(thing) -> dict[str, object]:
    """The options that have a default."""
    found = inspect.signature(thing).parameters.values()
    return {
        p.name: p.default
        for p in found
        if p.default is not p.empty and isinstance(p.default, int | float | str | bool)
    }


def apart(theirs: dict[str, object], ours: dict[str, object]) -> str:
    """Where both have an option of one name with another default."""
    same = [name for name in theirs if name in ours and theirs[name] != ours[name]]
    return ", ".join(f"`{n}`: {theirs[n]} there, {ours[n]} here" for n in same)


def pml_page() -> str:
    """From pytorch-metric-learning."""
    module = import_module("pytorch_metric_learning.losses")
    lines = []
    for theirs, ours in PML.items():
        options = parameters_of(losses.Memory) if ours == "Memory" else losses.parameters(ours)
        mine = {n: p.default for n, p in options.items()}
        differs = "; ".join(
            filter(None, (apart(defaults(getattr(module, theirs)), mine), NOTES.get(theirs, "")))
        )
        name = "`nk.losses.Memory`" if ours == "Memory" else f"[{ours}](../losses/{ours}.md)"
        lines.append(f"| `{theirs}` | {name} | {differs} |")
    rest = [f"| `{theirs}` | {ours} | |" for theirs, ours in PML_REST.items()]
    return PML_HEAD + "\n".join(lines) + "\n\n" + PML_MIDDLE + "\n".join(rest) + "\n" + PML_TAIL


PML_HEAD = """# From pytorch-metric-learning

A loss of ours is called as theirs, `loss(embeddings, labels, indices_tuple=None, ref_emb=None,
ref_labels=None)`, so both work in both loops, and their miners with our losses. Every loss of
theirs has a name here: `--loss pml:CircleLoss`. The tests compare losses with version 2.9.

```python
import torch
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner

import nearkin as nk

x, labels = torch.randn(24, 8), torch.arange(8).repeat(3)
print(nk.losses.Contrastive(margin=0.5)(x, labels, MultiSimilarityMiner()(x, labels)))
print(nk.losses.Memory(MultiSimilarityLoss(), size=64)(x, labels))
```

What differs in kind: there is no distance and no reducer to choose. A loss has the metric of its
formula, averages where its formula does, and gives 0 where there is nothing to learn. Defaults that
differ are read from both packages when this page is made.

| version 2 | here | differs |
|---|---|---|
"""
PML_MIDDLE = """| version 2, the rest | here | note |
|---|---|---|
"""
PML_TAIL = """
## Version 3

Version 3 wants Python 3.12, and this package is bounded to `<3`. It could not be installed where
this was written; what follows is from its documentation alone.

| version 3 | here |
|---|---|
| trainers, testers, `InferenceModel` and data sets are gone | the table above stays |
| `TripletMarginLoss` has a margin of 0.2, no longer 0.05 | `nk.losses.Triplet` has 0.2 |
| `MPerClassSampler` yields whole batches | so does `nk.data.Batches` |
| `DotProductSimilarity` no longer normalises | no loss here normalises but where its formula does |
"""


def metric_learn_page() -> str:
    """From metric-learn."""
    module = import_module("metric_learn")
    lines = []
    for theirs, ours in METRIC_LEARN.items():
        mine = {n: p.default for n, p in parameters_of(resolve(FORMS[ours])).items()}
        differs = "; ".join(
            filter(None, (apart(defaults(getattr(module, theirs)), mine), NOTES[theirs]))
        )
        lines.append(f'| `{theirs}` | `nk.closed.ClosedForm("{ours}", dim=D)` | {differs} |')
    return ML_HEAD + "\n".join(lines) + "\n"


ML_HEAD = """# From metric-learn

Its supervised estimators are closed forms here, estimators of scikit-learn too: `fit`,
`transform`, pipelines.

```python
import numpy as np

import nearkin as nk

x, y = np.random.default_rng(0).normal(size=(80, 6)), np.arange(80) % 8
z = nk.closed.ClosedForm("lfda", dim=3).fit(x, y).transform(x)
assert np.asarray(z).shape == (80, 3)
```

Parity with metric-learn is tested in `tests/test_closed_parity.py`. What is not here: algorithms
on pairs or quadruplets
given by hand (`ITML`, `MMC`, `SDML`, `LSML`) and `LMNN`, whose place a triplet loss on a linear
head takes.

| metric-learn | here | differs |
|---|---|---|
"""
